"""Names that begin with a dot are other programs' files beside ours: macOS's ``._NAME``, the hub's ``.cache``."""

from __future__ import annotations

from pathlib import PurePath


def hidden(name: str | PurePath) -> bool:
    """Whether a name, or a folder on its way, begins with a dot; a path counts from where the user pointed."""
    return any(part.startswith(".") for part in PurePath(name).parts)
