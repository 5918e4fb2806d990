"""Markdown that shows what users wrote as they wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence


def plain(value: object) -> str:
    """Text on one line without any markup's meaning."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(str(value).splitlines()))


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [[plain(cell) for cell in row] for row in (head, *rows)]
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]) + "\n"


def bullets(items: Sequence[object]) -> str:
    return "".join(f"- {plain(item)}\n" for item in items)


def code(value: str) -> str:
    """Indented, since nothing within can end that."""
    return "".join(f"    {line}\n" for line in value.splitlines())
