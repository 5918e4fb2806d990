"""The flag ``--npnet``: nets with a name each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from npnet_core.errors import InputError
from trainer.data.paths import expanded


def name_npnets(files: Sequence[str]) -> dict[str, Path]:
    """``FILE`` or ``NAME=FILE`` → name → file.

    Raises:
        InputError: for a name that is no folder's name, one that comes twice, or what is no path.
    """
    named = {}
    for each in files:
        name, equals, path = each.partition("=")
        if not equals or Path(expanded(each)).exists():
            name, path = Path(each).stem, each
        if name in named:
            raise InputError(f"Two nets are named {name}: name them apart, --npnet one={named[name]} two={path}.")
        if not name or name in (".", "..") or name != Path(name).name or "\\" in name or not name.isprintable():
            raise InputError(f"The net's name {name!r} cannot be a folder's name: use letters, digits, dots, - and _.")
        named[name] = Path(expanded(path))
    return named
