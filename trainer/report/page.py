"""A page in one file: nothing is loaded from anywhere. Reads on a phone, in the dark, on paper and without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path


class Html(str):
    """Markup, goes onto the page as it is. Every other string is text, and is escaped."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: text.
        html: markup; what users wrote has gone through :func:`text`.
        markdown: the same for ``report.md``, without the title; "" to point to the page instead.
    """

    title: str
    html: str
    markdown: str = ""


def text(value: object) -> Html:
    """What comes from users, as markup; markup stays as it is."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def paragraph(*parts: object) -> Html:
    return Html(f"<p>{''.join(map(text, parts))}</p>")


def bullets(items: Sequence[object], kind: str = "") -> Html:
    """A list; ``kind`` is a CSS class."""
    return Html(f'<ul class="{kind}">' + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>")


def table(head: Sequence[object], rows: Sequence[Sequence[object]], caption: object = "") -> Html:
    """A table that scrolls sideways where it is too wide. The first column names the row; the others are figures.

    Args:
        head: one cell per column.
        rows: as many cells each; strings are escaped, :class:`Html` is not.

    Raises:
        ValueError: if a row has another number of cells.
    """
    lines = []
    for row in rows:
        first, *others = map(text, row)
        if len(others) + 1 != len(head):
            raise ValueError(f"A row of {len(others) + 1} cells came for {len(head)} columns.")
        lines.append(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>')
    return Html(
        f'<div class="wide" tabindex="0"><table>{f"<caption>{text(caption)}</caption>" if caption else ""}<thead><tr>'
        + "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
        + f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def figure(content: str, caption: object = "", kind: str = "") -> Html:
    """A picture with words under it. ``content`` is markup, ``caption`` text or markup."""
    words = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return Html(f'<figure class="{kind}">{content}{words}</figure>')


def code(value: str) -> Html:
    return Html(f"<pre><code>{escape(value)}</code></pre>")


def page(title: str, sections: Sequence[Section], subtitle: object = "") -> str:
    """A whole HTML document.

    The content policy lets the browser load nothing but pictures within the file, and run no script but the page's own.

    Args:
        title: text.
        sections: in order; their titles make the contents.
        subtitle: text or markup under the title.
    """
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "".join(f'<li><a href="#s{i}">{text(each.title)}</a></li>' for i, each in enumerate(sections, start=1))
    body = "".join(
        f'<section id="s{i}"><h2>{text(each.title)}</h2>{each.html}</section>\n'
        for i, each in enumerate(sections, start=1)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n<body><header><h1>{text(title)}</h1>"
        f"{f'<div class=subtitle>{text(subtitle)}</div>' if subtitle else ''}"
        f'<nav aria-label="Contents"><ol>{links}</ol></nav></header>\n<main>\n{body}</main>\n'
        f"<script>{script}</script></body></html>\n"
    )
