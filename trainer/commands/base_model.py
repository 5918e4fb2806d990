"""The base model of a command: loaded as its flags say, and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from npnet_core.errors import InputError
from trainer import bases
from trainer.bases import Base
from trainer.distributed import find_device

# the help of these options, which stand in every command that loads a base model
BASE = "diffusers folder, single file or hub id of the base model"
DEVICE = "cpu, cuda, cuda:1, mps (default: a GPU if there is one)"
PRECISION = "of the base model (default: fp16 on a GPU)"
CONFIG = "for a single-file base model: a diffusers folder or hub id of its kind"
LORA = "a LoRA to add to the base model"


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
