"""Files that are written whole or not at all, whenever the process or the power goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path, partial: Path | None = None) -> Iterator[Path]:
    """Yields where to write; what is there when the block ends is synced and becomes ``path``, replacing what was.

    Args:
        partial: the name until then, in the same folder; by default ``NAME.partial``.

    Raises:
        OSError: if it cannot be synced or renamed. After this, as after any error within the block, ``path`` is as it
            was and nothing half-written stays.
    """
    partial = path.with_name(path.name + ".partial") if partial is None else partial
    try:
        partial.open("wb").close()
        mode = partial.stat().st_mode  # what files of this process may be; safetensors makes them its owner's alone
        yield partial
        partial.chmod(mode)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
