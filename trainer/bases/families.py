"""The table of families: one line each."""

from __future__ import annotations

from trainer.bases.base import Base
from trainer.bases.flux import Flux
from trainer.bases.hunyuan_dit import HunyuanDiT
from trainer.bases.schedules import Preset
from trainer.bases.sd3 import StableDiffusion3
from trainer.bases.stable_diffusion import StableDiffusion, StableDiffusionXL
from trainer.bases.z_image import ZImage

FAMILIES: tuple[type[Base], ...] = (
    StableDiffusionXL,
    StableDiffusion,
    HunyuanDiT,
    ZImage,
    StableDiffusion3,
    Flux,
)

PRESETS: dict[str, Preset] = {name: preset for family in FAMILIES for name, preset in family.presets.items()}


def default_preset(base: Base) -> str:
    """The name of the first preset of a base model's family whose guidance enters as its own; else of the first of all,
    SDXL's.
    """
    fitting = (name for name, preset in base.presets.items() if preset.guidance == base.guidance)
    return next(fitting, next(iter(PRESETS)))
