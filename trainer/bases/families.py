"""The table of families: one line each."""

from __future__ import annotations

from trainer.bases.base import Base
from trainer.bases.hunyuan_dit import HunyuanDiT
from trainer.bases.schedules import Preset
from trainer.bases.stable_diffusion import StableDiffusion, StableDiffusionXL

FAMILIES: tuple[type[Base], ...] = (
    StableDiffusionXL,
    StableDiffusion,
    HunyuanDiT,
)

PRESETS: dict[str, Preset] = {name: preset for family in FAMILIES for name, preset in family.presets.items()}


def default_preset(base: Base) -> str:
    """The name of the first preset of a base model's family; of the first of all, SDXL's, where it has none."""
    return next(iter(base.presets or PRESETS))
