"""Files that grow: a line of JSON at a time, and every worker its own. A line that a kill cut short does not count."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from npnet_core.errors import InputError


def read_shards(folder: Path, name: str) -> list[dict]:
    """The lines of ``NAME.jsonl`` and of every worker's ``NAME-….jsonl``, in the order of the files' names; raises as
    :func:`read_jsonl`."""
    paths = sorted([*folder.glob(f"{name}.jsonl"), *folder.glob(f"{name}-*.jsonl")])
    return [row for path in paths for row in read_jsonl(path)]


def read_jsonl(path: Path) -> list[dict]:
    """The lines of one file.

    Raises:
        InputError: for a line in the middle that is no JSON.
    """
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"Line {number} of {path} is damaged ({error}): delete it and run again.") from error
    return rows


def truncate_partial_line(path: Path) -> None:
    """Cut off what a kill had left of a last line, so that the next one does not continue it."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def append_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Add rows; a killed process has added all of some and none of the others.

    Raises:
        ValueError: for NaN or infinity.
    """
    text = to_jsonl(rows)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def to_jsonl(rows: Iterable[dict]) -> str:
    """A file's text; raises as :func:`append_jsonl`."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
