"""A page in one file: nothing is loaded from anywhere. Reads on a phone, in the dark, on paper and without scripts.

Markup and Markdown stand in ``templates/``; what comes from users is escaped there.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")
SETTINGS = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
HTML = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, **SETTINGS)
MARKDOWN = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=False, **SETTINGS)


@dataclass(frozen=True)
class Block:
    """A piece of a section, twice: ``html`` for the page and ``markdown`` for ``report.md``, which may lack it."""

    html: Markup = Markup()
    markdown: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: text.
        html: markup.
        markdown: the same for ``report.md``, without the title; "" to point to the page instead.
    """

    title: str
    html: str
    markdown: str = ""


def plain(value: object) -> str:
    """Text on one line in which Markdown sees no markup."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(str(value).splitlines()))


MARKDOWN.filters["plain"] = plain


def macros(template: str):
    """The macros of a template as functions, which return markup (of ``.md``: text)."""
    environment = MARKDOWN if template.endswith(".md") else HTML
    return environment.get_template(template).module


def block(name: str, *arguments: object) -> Block:
    """The macro of that name in ``parts.html`` and in ``parts.md``."""
    html, markdown = (getattr(macros(f"parts.{kind}"), name)(*arguments) for kind in ("html", "md"))
    return Block(html, markdown)


def table(head: Sequence[object], rows: Sequence[Sequence[object]], caption: str = "") -> Block:
    """The first column names the row; the others are figures.

    Args:
        head: one cell per column.
        rows: as many cells each: text, markup, or with ``value``, ``versus`` and ``side``, see ``parts.html``.

    Raises:
        ValueError: if a row has another number of cells.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"A row of {len(row)} cells came for {len(head)} columns.")
    return block("table", head, rows, caption)


def section(title: str, parts: Sequence[tuple[str, Sequence[Block]]], note: str = "") -> Section:
    """A section of parts, each under its heading ("" for none), after a note."""
    both = block("section", parts, note)
    return Section(title, both.html, both.markdown)


def page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """A whole HTML document.

    The content policy lets the browser load nothing but pictures within the file, and run no script but the page's own.
    """
    style, script = (TEMPLATES.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return HTML.get_template("page.html").render(
        title=title, subtitle=subtitle, sections=sections, style=style, script=script, policy=Markup(policy)
    )


def markdown_page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """The same as Markdown."""
    return macros("parts.md").document(title, subtitle, sections)
