"""An HTML page as a tree, refusing what browsers would have to guess at."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "hr", "link"}


class _Strict(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.builder = ElementTree.TreeBuilder()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, f"<{tag}/> outside of SVG"
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        self.builder.end(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def parse(page: str) -> ElementTree.Element:
    """The root; every element is closed where it should be."""
    parser = _Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open, f"{parser.open} stay open"
    return parser.builder.close()


def words(element: ElementTree.Element) -> str:
    """All text within."""
    return "".join(element.itertext())


def having(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Elements of a CSS class, in order."""
    return [each for each in root.iter() if name in each.get("class", "").split()]


def section(root: ElementTree.Element, title: str) -> ElementTree.Element:
    """The one of that title."""
    return next(each for each in root.iter("section") if [words(h2) for h2 in each.findall("h2")] == [title])


def tables(root: ElementTree.Element) -> list[list[list[str]]]:
    """Cells of every table; a value and what stands under it are apart by a line break."""
    return [[[_lines(cell) for cell in row] for row in table.iter("tr")] for table in root.iter("table")]


def _lines(cell: ElementTree.Element) -> str:
    return "\n".join(map(words, cell if len(cell) else [cell]))
