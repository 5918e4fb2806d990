"""Tables in text, csv and tsv, also as prompt sets were published that keep to no standard.

A cell is quoted if quotation marks stand around all of it, but for spaces, and are doubled within; in every other cell
they are characters like others. A quoted cell may hold separators and line breaks; in a tsv only one of the two, so
that a quotation mark that one row opens and another closes does not join them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

SEPARATORS = ",;\t"
QUOTED = r'"[^"]*(?:""[^"]*)*"'
QUOTED_TSV = r'"[^"\n]*(?:""[^"\n]*)*"|"[^"\t]*(?:""[^"\t]*)*"'


class Record(NamedTuple):
    """One row: its number from the first below the names, its line in the file, its cells as they are written."""

    number: int
    line: int
    cells: list[str]


def read_table(text: str, separator: str) -> dict[int, dict[str, str | None]]:
    """Number of the row → name of the column → cell. Rows may leave out the last cells, and blank rows do not count.

    Args:
        text: the names of the columns, then the rows; a first line ``sep=;`` is Excel's and names the separator.
        separator: taken unless the names are separated by another of :data:`SEPARATORS`.

    Raises:
        ValueError: for a row that cannot be read without doubt, which it names, or columns of one name.
    """
    if marked := re.match(r"sep=(.)\n", text, re.IGNORECASE):
        separator, text = marked[1], "\n" + text[marked.end() :]  # the lines keep their numbers
    else:
        names = text.lstrip("\n").partition("\n")[0]
        # a comma before a space is text, as in "Prompt (subject, style)"
        separator = max((separator, *SEPARATORS), key=lambda each: len(re.findall(rf"{re.escape(each)}(?! )", names)))
    records = list(_records(text, separator))
    if not records:
        return {}
    names = [_unquoted(cell).strip() for cell in records[0].cells]
    while names and not names[-1]:
        names.pop()
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise ValueError(f"its first line names {twice[0]} twice")
    rows = [record._replace(cells=_without_empty_tail(record.cells, len(names))) for record in records[1:]]
    spaced = any(cell.startswith(" ") for cell in records[0].cells)
    rows = _with_text_at_the_end(rows, len(names), separator, spaced)
    for row in rows:
        if separator != "\t":
            _check_quotes(row, len(names), separator)
    return {
        row.number: dict.fromkeys(names) | dict(zip(names, map(_unquoted, row.cells), strict=False)) for row in rows
    }


def _records(text: str, separator: str) -> Iterator[Record]:
    """The rows that are not blank, the names of the columns being number 0."""
    quoted = QUOTED_TSV if separator == "\t" else QUOTED
    end = rf"[{re.escape(separator)}\n]|\Z"
    number, line, cells = 0, 1, []
    start = line
    for match in re.finditer(rf"( *(?:{quoted}) *(?={end})|[^{re.escape(separator)}\n]*)({end})", text):
        cells.append(match[1])
        line += match[0].count("\n")
        if match[2] != separator:
            if any(_unquoted(cell).strip() for cell in cells):
                yield Record(number, start, cells)
                number += 1
            cells, start = [], line


def _unquoted(cell: str) -> str:
    bare = cell.strip(" ")
    return bare[1:-1].replace('""', '"') if bare.startswith('"') and re.fullmatch(QUOTED, bare) else cell


def _without_empty_tail(cells: list[str], count: int) -> list[str]:
    """Without the empty cells behind the last column."""
    return cells[:count] if not any(map(str.strip, cells[count:])) else cells


def _check_quotes(row: Record, count: int, separator: str) -> None:
    """Raise ValueError for a quotation mark without its other half, or whose other half seems to lie in another row."""
    lines = separator.join(row.cells).split("\n")
    if len(lines) > 2 and all(
        len(re.findall(rf"{re.escape(separator)}(?! )", line)) == count - 1 > 0 for line in lines
    ):
        raise ValueError(
            f"row {row.number} runs over {len(lines)} lines that each could be a row (line {row.line} of the file): "
            "look for a quotation mark that is not closed in its row"
        )
    for cell in (cell.strip(" ") for cell in row.cells):
        if cell.startswith('"') and _unquoted(cell) == cell and (cell.endswith('"') or cell.count('"') % 2):
            raise ValueError(
                f"row {row.number} has quotation marks that do not fit each other (line {row.line} of the file): put "
                "them around the whole cell and double those within"
            )


def _with_text_at_the_end(rows: list[Record], count: int, separator: str, spaced: bool) -> list[Record]:
    """The rows with no more than ``count`` cells.

    HPD as the paper's authors publish it has four names and rows of a number and a prompt, commas in it not quoted. So
    where rows leave out the last columns, a separator that no word follows is text of the last cell that all have.
    """
    long = [row for row in rows if len(row.cells) > count]
    width = min((len(row.cells) for row in rows), default=count)
    beyond = [cell for row in rows for cell in row.cells[width:]]
    loose = not spaced and any(cell.startswith(" ") for cell in beyond)
    if width < count and (long or loose) and not any(re.match(r"\w", cell) for cell in beyond):
        last = width - 1
        return [row._replace(cells=[*row.cells[:last], separator.join(row.cells[last:])]) for row in rows]
    if long:
        raise ValueError(
            f"row {long[0].number} has more cells than the first line (line {long[0].line} of the file): put prompts "
            "with commas into quotes"
        )
    return rows
