"""Prompt sets from the users' own files: txt, csv, tsv, json, jsonl, parquet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

from npnet_core.errors import InputError, reason

KINDS = ".txt, .csv, .tsv, .json, .jsonl or .parquet"

COLUMNS = ("prompt", "prompts", "caption")
CATEGORIES = ("category", "tag", "style")

Row = dict[str, object]


class PromptRow(NamedTuple):
    """A prompt of a set, and its category where the set has them."""

    prompt: str
    category: str | None = None


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a prompt file, in order, each with the names of its columns.

    A line of a txt and a bare string in a json or jsonl are rows whose only column is ``prompt``. Columns of a parquet
    file that hold pictures (binary) are left out.

    Args:
        path: a file of one of :data:`KINDS`, its text in UTF-8, with or without a byte order mark.

    Raises:
        InputError: the file is missing, not UTF-8, of another kind, or cannot be parsed.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"There is no prompt file {path}: name a {KINDS} file.")
    if kind == ".parquet":
        return _read_parquet(path)
    if kind not in READERS:
        raise InputError(f"The prompt file {path} ends in {kind or 'nothing'}: give a {KINDS} file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"The prompt file {path} is not UTF-8 (at byte {error.start}): save it as UTF-8.") from error
    try:
        rows = READERS[kind](text)
    except (ValueError, csv.Error) as error:
        raise InputError(f"The prompt file {path} is not {kind[1:]} ({error}): check how it was made.") from error
    return [row if isinstance(row, dict) else {"prompt": row} for row in rows]


def read_prompts(path: str | Path, column: str | None = None) -> list[str]:
    """The distinct prompts of a file, in the order of their first appearance; empty cells are no prompts.

    Args:
        column: where the prompts are; by default the first of :data:`COLUMNS` that is there, in upper or lower case.

    Raises:
        InputError: as :func:`read_rows`; for a missing column, a cell that is no text, or no prompt at all.
    """
    rows = read_rows(path)
    name = find_column(path, rows, column or usual_column(rows))
    prompts = {prompt_of(path, number, row.get(name)): None for number, row in enumerate(rows, start=1)}
    prompts.pop("", None)
    if not prompts:
        raise InputError(f"The prompt file {path} has no prompt in column {name}: put at least one there.")
    return list(prompts)


def read_prompt_set(path: str | Path, column: str | None = None) -> list[PromptRow]:
    """The distinct prompts of a set, in the order of their first appearance, with their categories.

    Besides people's own files it knows how published sets are laid out: DrawBench (csv: ``Prompts``, ``Category``),
    GenEval (jsonl: ``prompt``, ``tag``), Pick-a-Pic (``caption``), HPD v2 (json: ``prompt``, or a folder with a list of
    prompts per style, whose categories are the files' names), PartiPrompts (tsv: ``Prompt``, ``Category``).

    Args:
        path: a file that :func:`read_rows` reads, or a folder of such files.
        column: where the prompts are; by default the first of :data:`COLUMNS` that is there, in upper or lower case.
            Categories are in the first of :data:`CATEGORIES`, if any.

    Raises:
        InputError: as :func:`read_prompts`, and for a folder without such files.
    """
    path = Path(path)
    if not path.is_dir():
        return _distinct(path, _prompt_rows(path, column))
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (*READERS, ".parquet"))
    if not files:
        raise InputError(f"The folder {path} has no prompt file: put {KINDS} files there.")
    rows = [row._replace(category=row.category or file.stem) for file in files for row in _prompt_rows(file, column)]
    return _distinct(path, rows)


def _prompt_rows(path: Path, column: str | None) -> list[PromptRow]:
    rows = read_rows(path)
    names = {name.lower() for row in rows for name in row}
    prompt = find_column(path, rows, column or usual_column(rows))
    category = next((find_column(path, rows, name) for name in CATEGORIES if name in names), None)
    return [
        PromptRow(prompt_of(path, number, row.get(prompt)), _category(row.get(category)))
        for number, row in enumerate(rows, start=1)
    ]


def _category(cell: object) -> str | None:
    return None if cell is None else str(cell).strip() or None


def _distinct(path: Path, rows: list[PromptRow]) -> list[PromptRow]:
    distinct: dict[str, PromptRow] = {}
    for row in rows:
        if row.prompt:
            distinct.setdefault(row.prompt, row)
    if not distinct:
        raise InputError(f"The prompt set {path} has no prompt: put at least one there.")
    return list(distinct.values())


def usual_column(rows: list[Row]) -> str:
    """The first of :data:`COLUMNS` that is there."""
    names = {name.lower() for row in rows for name in row}
    return next((name for name in COLUMNS if name in names), COLUMNS[0])


def find_column(path: str | Path, rows: list[Row], name: str) -> str:
    """The name of a column as the file spells it; ``name`` may be in another case where that is not ambiguous.

    Raises:
        InputError: if there is none of that name, or no row at all.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    if not names:
        raise InputError(f"The prompt file {path} is empty: put at least one prompt there.")
    found = [key for key in names if key == name] or [key for key in names if key.lower() == name.lower()]
    if len(found) != 1:
        raise InputError(
            f"The prompt file {path} has no column {name}: it has {', '.join(names)}, so name one of them (--column)."
        )
    return found[0]


def prompt_of(path: str | Path, number: int, cell: object) -> str:
    """The prompt in one cell, without the white space around it; "" for an empty cell.

    Raises:
        InputError: if it holds no text, or half a character, which no text encoder reads.
    """
    prompt = "" if cell is None else cell
    if not isinstance(prompt, str):
        raise InputError(f"Row {number} of {path} has {cell!r} where a prompt belongs: give a text.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"Row {number} of {path} has half a character ({prompt!r}): write it anew.") from error
    return prompt.strip()


def _read_txt(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _read_csv(text: str, delimiter: str = ",") -> list[Row]:
    """The csv module keeps delimiters and line breaks inside quotes."""
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(f"row {number} has more cells than the first line: put prompts with commas into quotes")
    return rows


def _read_tsv(text: str) -> list[Row]:
    return _read_csv(text, "\t")


def _read_json(text: str) -> list[Row | str]:
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError(f"it holds a {type(rows).__name__} and not a list")
    return rows


def _read_jsonl(text: str) -> list[Row | str]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


READERS = {".txt": _read_txt, ".csv": _read_csv, ".tsv": _read_tsv, ".json": _read_json, ".jsonl": _read_jsonl}


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [field.name for field in file.schema_arrow if "binary" not in str(field.type)]
            return file.read(names).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # it tells damage in many ways
        raise InputError(f"The prompt file {path} is not parquet ({reason(error)}): check how it was made.") from error
