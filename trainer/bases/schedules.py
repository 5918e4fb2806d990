"""Sampling schedules as people name them: a sampler, its steps and their spacing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from npnet_core.errors import InputError

# name: (diffusers' class, what it needs beside the model's noise schedule). Table 10's seven, and two for models of few
# steps. Latents have no bounds, so nothing is clipped; PNDM without Runge-Kutta warm-up is Stable Diffusion's PLMS.
SAMPLERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpm-solver-multistep": ("DPMSolverMultistepScheduler", {}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "kdpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
STOCHASTIC = ("ddpm", "euler-ancestral", "kdpm2-ancestral", "lcm")  # draw fresh noise on the way
SPACINGS = ("leading", "trailing", "linspace", "ays")


@dataclass(frozen=True)
class Schedule:
    """How many steps, and where: a sampler's name (see :data:`SAMPLERS`), its number of steps, their spacing.

    Args:
        sampler: one of :data:`SAMPLERS`.
        steps: number of denoising steps.
        spacing: ``leading``, ``trailing`` or ``linspace``; ``ays`` for the ten steps of Align Your Steps; None for the
            spacing that the base model's own scheduler has.

    Raises:
        InputError: for a name that does not exist, no steps, or another number than ten with ``ays``.
    """

    sampler: str = "ddim"
    steps: int = 10
    spacing: str | None = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise InputError(f"There is no sampler {self.sampler!r}: use one of {', '.join(SAMPLERS)}.")
        if self.spacing not in (None, *SPACINGS):
            raise InputError(f"There is no spacing {self.spacing!r}: use one of {', '.join(SPACINGS)}.")
        if self.steps < 1:
            raise InputError(f"{self.steps} denoising steps make no image: use at least 1.")
        if self.spacing == "ays" and self.steps != 10:
            raise InputError(f"Spacing ays exists for 10 steps and {self.steps} were asked for: use 10 steps.")


Guidance = Literal["cfg", "embedding", "none"]
"""How guidance enters a prediction: as a second branch without the prompt (``cfg``), as a number that the network is
told (``embedding``), or not at all, because it was distilled into the weights (``none``)."""


@dataclass(frozen=True)
class Preset:
    """Settings for one base model.

    Attributes:
        cfg, inversion_cfg: guidance w_l down, and of images, and w_w back.
        schedule: what pairs are collected on.
        steps: of images that are made to be looked at or compared, with the schedule's sampler.
        depth: steps taken down and back.
        guidance: of the models that these settings are for.
    """

    cfg: float
    inversion_cfg: float
    schedule: Schedule
    steps: int = 50
    depth: int = 1
    guidance: Guidance = "cfg"

    @property
    def images(self) -> Schedule:
        """Of images to be looked at or compared."""
        return dataclasses.replace(self.schedule, steps=self.steps)
