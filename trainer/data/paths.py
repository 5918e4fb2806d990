"""Paths as people write them where no shell has read them: in a config file, or behind a ``=``."""

from __future__ import annotations

import os

from npnet_core.errors import InputError


def expanded(path: str) -> str:
    """The path, or a hub's id, with ``~`` at its beginning as the home folder.

    Raises:
        InputError: for control characters, which TOML makes of a Windows path in double quotes.
    """
    if any(ord(character) < 32 for character in path):
        raise InputError(
            f"{path!r} is no path, it has a control character: in a config file write a Windows path in single quotes, "
            "or with /."
        )
    return os.path.expanduser(path)
