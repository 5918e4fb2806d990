"""TOML files of settings: one value or list of them per line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from npnet_core.errors import InputError
from trainer.data.textfile import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, object]:
    """The entries of a file that :func:`trainer.data.textfile.read_text` reads.

    Raises:
        InputError: if it is not there or is not TOML.
    """
    if not path.is_file():
        raise InputError(f"There is no config file {path}: check the name given to --config.")
    text = read_text(path, "The config file")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, or numbers and lists without end
        paths = ", and Windows paths in single quotes or with /" if "\\" in text else ""
        raise InputError(f"{path} is not TOML ({error}): write lines such as `steps = 10`{paths}.") from error


def write_toml(values: Mapping[str, object], path: Path) -> None:
    """Write bools, numbers, texts, paths and tuples of them; None is left out."""
    lines = [
        # a JSON string, number, boolean or array of these is TOML too
        f"{name} = {json.dumps(as_toml(value), ensure_ascii=False)}\n"
        for name, value in values.items()
        if value is not None
    ]
    path.write_text("".join(lines), encoding="utf-8")


def as_toml(value: object) -> object:
    """A value as :func:`read_toml` gives it back: paths are texts, tuples are lists."""
    if isinstance(value, tuple):
        return [as_toml(each) for each in value]
    return str(value) if isinstance(value, Path) else value
