"""What is inside a file or folder that a user named; names do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from npnet_core.errors import InputError
from npnet_core.preference.files import layout_of
from npnet_core.tensorfile import read_tensors
from trainer.data.released import find_pairs

FileKind = Literal["dataset", "released pairs", "preference model", "npnet"]


def file_kind(path: Path) -> FileKind:
    """What to read it as. ``npnet`` also stands for a file that is none of the four: its reader says why not.

    Raises:
        InputError: for a folder that is none of them.
    """
    if not path.is_dir():
        return "preference model" if _has_keys_of_a_scorer(path) else "npnet"
    if (path / "manifest.json").is_file():
        return "dataset"
    if (path / "config.json").is_file():
        return "preference model"
    if find_pairs(path):
        return "released pairs"
    raise InputError(
        f"The folder {path} is no dataset (manifest.json), no preference model (config.json) and has no pairs in the "
        "released format (npz): name another, or a file in it."
    )


def _has_keys_of_a_scorer(path: Path) -> bool:
    try:
        layout_of(path, read_tensors(path)[0])
    except InputError:  # whatever it is, it is not for this reader to say
        return False
    return True
