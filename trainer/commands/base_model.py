"""The base model of a command: loaded as its flags say, and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from npnet_core.errors import InputError
from trainer import bases
from trainer.bases import PRESETS, Base
from trainer.distributed import find_device

# the help of these options, which stand in every command that loads a base model
BASE = "diffusers folder, single file or hub id of the base model"
DEVICE = "cpu, cuda, cuda:1, mps (default: a GPU if there is one)"
PRECISION = "of the base model (default on a GPU: fp16, of flow models bf16)"
PRESET = (
    "settings for a kind of base model (default: the first of its family; sdxl for SD); says whether it is distilled"
)
SIBLING = "folder or hub id of the model that a distilled base model comes from: noises are re-denoised with it"
CONFIG = "for a single-file base model: a diffusers folder or hub id of its kind"
LORA = "a LoRA to add to the base model"


def load(options, **more) -> Base:
    """From the Options of a command with ``base``, ``base_config``, ``device``, ``precision`` and ``lora``, and perhaps
    ``preset`` and ``redenoise_with``.

    Args:
        more: for :func:`trainer.bases.load_base`, which says what it raises.

    Raises:
        InputError: also if guidance enters the model otherwise than the preset says.
    """
    preset, sibling = (getattr(options, name, None) for name in ("preset", "redenoise_with"))
    base = bases.load_base(
        options.base,
        config=options.base_config,
        device=find_device(options.device),
        precision=options.precision,
        lora=options.lora,
        distilled=None if preset is None else PRESETS[preset].guidance == "none",
        **more,
    )
    if preset is not None:
        check_preset(base, preset)
    return base if sibling is None else bases.with_sibling(base, sibling)


def check_preset(base: Base, preset: str) -> None:
    """Raise InputError for a preset of models that are told their guidance or have it built in, where this one differs.

    What is built in often only the preset says; whether a network is told its guidance, its config does.
    """
    said = PRESETS[preset].guidance
    if said in ("cfg", base.guidance):
        return
    theirs, ours = ("have guidance built in", "is told it") if said == "none" else ("are told guidance", "is not")
    raise InputError(
        f"--preset {preset} is for models that {theirs} and {base.source} {ours}: name the preset of this kind of "
        "model, or leave --preset out."
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
