"""Checkpoints of a fit: everything that is needed to go on to the bit.

    OUT/checkpoints/<step>.pt    weights, their moving average, optimizer, step, and what the run was started with

Batch order, learning rate and stochastic depth are pure functions of the step, so no random state has to be kept.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch

from npnet_core.atomic_write import atomic_write
from npnet_core.errors import InputError, reason
from npnet_core.tensorfile import zip_damage


def save_checkpoint(folder: Path, step: int, state: dict, keep: int) -> Path:
    """Write ``state``, a nested dict of tensors and plain values, whole or not at all, and remove all but the ``keep``
    latest.

    Raises:
        OSError: for a full disk; older checkpoints are still there.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{step:08d}.pt"
    content = io.BytesIO()
    torch.save(state, content)
    with atomic_write(path) as partial:
        partial.write_bytes(content.getbuffer())
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> dict:
    """What :func:`save_checkpoint` wrote, on the CPU.

    Raises:
        InputError: if the file is damaged.
    """
    with path.open("rb") as file:
        try:
            damage = zip_damage(path)
            state = torch.load(file, map_location="cpu", weights_only=True) if damage is None else None
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can break a parser anywhere
            damage = reason(error)
    if damage is None and not isinstance(state, dict):
        damage = f"it holds a {type(state).__name__}"
    if damage is not None:
        raise InputError(
            f"The checkpoint {path} is damaged ({damage}): delete it, the run then goes on from the one before."
        )
    return state


def checkpoints(folder: Path) -> list[Path]:
    """All of a run, oldest first; a copy under another name is none."""
    return sorted(path for path in folder.glob("*.pt") if path.stem.isdecimal())
