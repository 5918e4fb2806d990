"""Prompt sets from the users' own files: txt, csv, json, jsonl, parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from npnet_core.errors import InputError


def read_rows(path: Path) -> list[dict[str, object]]:
    """The rows of a prompt file, in order. The lines of a txt and the strings of a JSON list are in column ``prompt``.

    Args:
        path: ``.txt``, ``.csv``, ``.tsv``, ``.json`` (a list), ``.jsonl`` or ``.parquet``, text in UTF-8.

    Raises:
        InputError: the file is missing, not UTF-8, of another kind, or cannot be parsed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no prompt file {path}: give a txt, csv, tsv, json, jsonl or parquet file.")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it again as UTF-8.") from error
    if path.suffix == ".txt":
        return [{"prompt": line.strip()} for line in text.splitlines() if line.strip()]
    if path.suffix in (".csv", ".tsv"):
        # the csv module keeps commas and line breaks inside quotes
        return list(csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if path.suffix == ".tsv" else ","))
    try:
        if path.suffix == ".json":
            return [row if isinstance(row, dict) else {"prompt": row} for row in json.loads(text)]
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{path} is not a {path.suffix[1:]} of prompts ({error}): check its lines.") from error
    raise InputError(f"{path} ends in {path.suffix or 'nothing'}: give a txt, csv, tsv, json, jsonl or parquet file.")


def read_prompts(path: Path, column: str | None = None) -> list[str]:
    """The distinct prompts of a file, in the order of their first appearance.

    Args:
        column: where the prompts are; by default ``prompt``, in any case.

    Raises:
        InputError: as :func:`read_rows`, for a missing column, and where no prompt is left.
    """
    rows = read_rows(path)
    key = find_column(path, rows, column, "prompt")
    prompts = list(dict.fromkeys(str(row[key]).strip() for row in rows if row.get(key) is not None))
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise InputError(f"{path} has no prompt in column {key}: put at least one there.")
    return prompts


def find_column(path: Path, rows: list[dict[str, object]], column: str | None, default: str) -> str:
    """The name of a column as the file spells it.

    Raises:
        InputError: if there is none of that name, or no row at all.
    """
    names = _names(rows)
    if not names:
        raise InputError(f"{path} is empty: put at least one prompt there.")
    wanted = column or default
    for name in names:
        if name == wanted or (column is None and name.lower() == wanted):
            return name
    raise InputError(f"{path} has no column {wanted}: it has {', '.join(names)}; name one of them with --column.")


def _names(rows: Iterable[dict[str, object]]) -> list[str]:
    return list(dict.fromkeys(str(name) for row in rows for name in row if name is not None))


def _read_parquet(path: Path) -> list[dict[str, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not a parquet file ({reason}): check how it was made.") from error
