"""The base model of a command: loaded as its flags say, and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from npnet_core.errors import InputError
from trainer import bases
from trainer.bases import Base
from trainer.distributed import find_device


def load(options, **more) -> Base:
    """From the Options of a command with ``base``, ``base_config``, ``device``, ``precision`` and ``lora``.

    Args:
        more: for :func:`trainer.bases.load_base`, which says what it raises.
    """
    return bases.load_base(
        options.base,
        config=options.base_config,
        device=find_device(options.device),
        precision=options.precision,
        lora=options.lora,
        **more,
    )


@contextmanager
def memory_for(base: Base, batch: str) -> Iterator[None]:
    """Within the block, running out of the device's memory is an InputError that says so of ``batch``, "4 images"."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"The memory of {base.device} does not hold {batch} at once: use a smaller --batch."
        ) from error
