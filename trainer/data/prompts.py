"""Prompt sets from the users' own files: txt, csv, tsv, json, jsonl, parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from npnet_core.errors import InputError, reason
from npnet_core.hidden import hidden
from trainer.data.table import read_table
from trainer.data.textfile import read_text

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
    file that hold pictures or times are left out.

    Args:
        path: a file of one of :data:`KINDS`, its text as :func:`trainer.data.textfile.read_text` reads it, its table as
            :func:`trainer.data.table.read_table`. A json is a list, rows by their names, or lines of JSON as in a
            jsonl.

    Raises:
        InputError: the file is missing, not UTF-8, of another kind, or cannot be parsed.
    """
    return list(_numbered_rows(Path(path)).values())


def _numbered_rows(path: Path) -> dict[int, Row]:
    """The rows by their numbers: in a table below the names, in a list from 1, else that of the line."""
    kind = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"There is no prompt file {path}: name a {KINDS} file.")
    if kind == ".parquet":
        return _read_parquet(path)
    if kind not in READERS:
        raise InputError(f"The prompt file {path} ends in {kind or 'nothing'}: give a {KINDS} file.")
    text = read_text(path, "The prompt file")
    try:
        rows = READERS[kind](text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The prompt file {path} is not {kind[1:]} ({error}): check how it was made.") from error
    return {number: row if isinstance(row, dict) else {"prompt": row} for number, row in rows.items()}


def read_prompts(path: str | Path, column: str | None = None) -> list[str]:
    """The prompts of :func:`read_prompt_set`."""
    return [row.prompt for row in read_prompt_set(path, column)]


def read_prompt_set(path: str | Path, column: str | None = None) -> list[PromptRow]:
    """The distinct prompts of a set, in the order of their first appearance, with their categories; empty cells are no
    prompts.

    It knows how published sets are laid out: DrawBench (csv: ``Prompts``, ``Category``), PartiPrompts (tsv without
    quoting: ``Prompt``, ``Category``), GenEval (jsonl: ``prompt``, ``tag``), Pick-a-Pic (``caption``), HPD v2 (json:
    ``prompt``, or a folder with a list of prompts per style), HPD as the paper's authors publish it (csv with commas
    that are not quoted), MJHQ-30K (json: rows by their names), T2I-CompBench (a folder of txt).

    Args:
        path: a file that :func:`read_rows` reads, or a folder of such files, whose categories are then the files'
            names, unless each holds one prompt, as DPG-Bench's do; names that begin with a dot are others'.
        column: where the prompts are; by default the first of :data:`COLUMNS` that is there, in upper or lower case.
            Categories are in the first of :data:`CATEGORIES`, if any.

    Raises:
        InputError: as :func:`read_rows`; for a folder without such files, a missing column, a cell that is no text, or
            no prompt at all.
    """
    path = Path(path)
    files = [path] if not path.is_dir() else find_files(path)
    distinct: dict[str, PromptRow] = {}
    names: dict[str, str] = {}  # of the files
    for file in files:
        for row in _prompt_rows(file, column):
            distinct.setdefault(row.prompt, row)
            names.setdefault(row.prompt, file.stem)
    distinct.pop("", None)
    if not distinct:
        where = column or " or ".join(COLUMNS)
        raise InputError(f"The prompt set {path} has no prompt in column {where}: put at least one there.")
    if path.is_dir() and len(distinct) > len(files):
        return [row._replace(category=row.category or names[row.prompt]) for row in distinct.values()]
    return list(distinct.values())


def find_files(folder: Path) -> list[Path]:
    """The prompt files directly in a folder, by name.

    Raises:
        InputError: if there is none.
    """
    found = (path for path in folder.iterdir() if not hidden(path.name))
    if not (files := sorted(path for path in found if path.suffix.lower() in (*READERS, ".parquet"))):
        raise InputError(f"The folder {folder} has no prompt file: put {KINDS} files there.")
    return files


def _prompt_rows(path: Path, column: str | None) -> list[PromptRow]:
    numbered = _numbered_rows(path)
    rows = list(numbered.values())
    names = {name.lower() for row in rows for name in row}
    prompt = find_column(path, rows, column or usual_column(rows))
    if without := next((number for number, row in numbered.items() if prompt not in row), None):
        raise InputError(
            f"Row {without} of {path} has no {prompt}, only {', '.join(numbered[without]) or 'nothing'}: give it one, "
            "or leave the row out."
        )
    category = next((find_column(path, rows, name) for name in CATEGORIES if name in names), None)
    return [
        PromptRow(prompt_of(path, number, row.get(prompt)), _category(row.get(category)))
        for number, row in numbered.items()
    ]


def _category(cell: object) -> str | None:
    return None if cell is None else str(cell).strip() or None


def usual_column(rows: list[Row]) -> str:
    """The first of :data:`COLUMNS` that is there."""
    names = {name.lower() for row in rows for name in row}
    return next((name for name in COLUMNS if name in names), COLUMNS[0])


def find_column(path: str | Path, rows: list[Row], name: str) -> str:
    """The name of a column as the file spells it; ``name`` may be in another case where that is not ambiguous.

    Raises:
        InputError: if there is none of that name, or no row at all.
    """
    table = Path(path).suffix.lower() in (".csv", ".tsv")
    names = list(dict.fromkeys(key for row in rows for key in row))
    if not names:
        named = table and Path(path).stat().st_size > 0
        empty = "has no row below its first line, which names the columns" if named else "is empty"
        raise InputError(f"The prompt file {path} {empty}: put at least one prompt there.")
    found = [key for key in names if key == name] or [key for key in names if key.lower() == name.lower()]
    if len(found) != 1:
        headless = (
            f" (--column), or, if that line is a prompt, put the line {name} above it, or save the file as .txt with a "
            "prompt per line."
        )
        raise InputError(
            f"The prompt file {path} has no column {name}: it has {', '.join(names)}, "
            + ("as its first line says, so name one of them" + headless if table else "so name one of them (--column).")
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


def _read_txt(text: str) -> dict[int, str]:
    return {number: line for number, line in enumerate(text.split("\n"), start=1) if line.strip()}


def _read_csv(text: str) -> dict[int, Row]:
    return read_table(text, ",")


def _read_tsv(text: str) -> dict[int, Row]:
    return read_table(text, "\t")


def _read_json(text: str) -> dict[int, Row | str]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError:
        if text.lstrip().startswith("["):
            raise
        return _read_jsonl(text)  # which many a published .json is
    if isinstance(rows, dict) and rows and all(isinstance(row, dict) for row in rows.values()):
        rows = list(rows.values())
    if isinstance(rows, dict) and any(isinstance(rows[name], str) for name in rows if name.lower() in COLUMNS):
        rows = [rows]  # lines of JSON, and only one of them
    if not isinstance(rows, list):
        raise ValueError(f"it holds a {type(rows).__name__} and not a list")
    return dict(enumerate(rows, start=1))


def _read_jsonl(text: str) -> dict[int, Row | str]:
    rows = {}
    for number, line in _read_txt(text).items():
        try:
            rows[number] = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"row {number}: {error.msg} at character {error.colno}") from error
    return rows


READERS = {".txt": _read_txt, ".csv": _read_csv, ".tsv": _read_tsv, ".json": _read_json, ".jsonl": _read_jsonl}


def _read_parquet(path: Path) -> dict[int, Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            # times in nanoseconds, as Pick-a-Pic has them, would need pandas
            names = [f.name for f in file.schema_arrow if not any(kind in str(f.type) for kind in ("binary", "time"))]
            return dict(enumerate(file.read(names).to_pylist(), start=1))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # it tells damage in many ways
        raise InputError(f"The prompt file {path} is not parquet ({reason(error)}): check how it was made.") from error
