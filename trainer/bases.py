"""Base models: load one, encode prompts, predict, sample, decode. The only file that talks to diffusers.

Everything between the parts is a tensor of one kind: latents and noise are fp32 [B, C, h, w] with unit variance at the
start, whatever a scheduler or an autoencoder wants scaled; images are fp32 [B, H, W, 3] in 0..1.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from npnet_core.errors import InputError
from npnet_core.redenoise import Denoiser, Level, denoised_from, guide


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
            raise InputError(
                f"Spacing ays exists for 10 steps and {self.steps} were asked for: use 10 steps."
            )


@dataclass(frozen=True)
class Preset:
    """The paper's settings for one base model: guidance w_l down, w_w back, collection steps, side in pixels.

    ``repo`` is where the weights live; nothing here fetches them.
    """

    repo: str
    cfg: float
    inversion_cfg: float
    schedule: Schedule
    size: int = 1024


@dataclass(frozen=True)
class Base:
    """A loaded base model. Made by :func:`load_base`.

    Attributes:
        source: what the user named.
        family: ``sdxl``, ``hunyuan-dit``, ``sd1``, ``sd2``, or ``sd`` for an SD of another width; goes into NPNetConfig.
        pipe: the diffusers pipeline that holds the parts. Its ``__call__`` is never used.
        device: where the network predicts.
        controlnet: the ControlNet that ``control`` pictures are for, or None.
    """

    source: str
    family: str
    pipe: Any
    device: torch.device
    controlnet: nn.Module | None = None

    @property
    def network(self) -> nn.Module:
        """The UNet or transformer."""
        return self.pipe.transformer if self.family == "hunyuan-dit" else self.pipe.unet

    @property
    def dtype(self) -> torch.dtype:
        """The network's precision."""
        return self.network.dtype

    @property
    def prediction(self) -> str:
        """What the network predicts: ``epsilon`` or ``v_prediction``."""
        return self.pipe.scheduler.config.prediction_type

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return self.network.config.in_channels

    @property
    def pixels(self) -> int:
        """Image pixels per side of a latent pixel (8 for the published models)."""
        return self.pipe.vae_scale_factor

    @property
    def size(self) -> int:
        """The side, in pixels, of the square images the network was made for."""
        return self.pipe.default_sample_size * self.pixels

    @property
    def prompt_tokens(self) -> int:
        """T of the prompt embedding [N, T, D]."""
        return 77 if self.family == "hunyuan-dit" else self.pipe.tokenizer.model_max_length

    @property
    def prompt_dim(self) -> int:
        """D of the prompt embedding [N, T, D]."""
        width = self.pipe.text_encoder.config.hidden_size
        return width + (self.pipe.text_encoder_2.config.hidden_size if self.family == "sdxl" else 0)


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts: what the network is told with each of N prompts, and with none (the unconditional branch).

    ``cond`` and ``uncond`` hold the same names; every tensor of ``cond`` is [N, …], of ``uncond`` [1, …].
    """

    cond: dict[str, Tensor]
    uncond: dict[str, Tensor]

    @property
    def prompt_embeds(self) -> Tensor:
        """[N, T, D], what an NPNet sees."""
        return self.cond["prompt_embeds"]

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, rows: Sequence[int] | slice) -> Prompts:
        """Some of the prompts, in any order, any number of times."""
        return Prompts({name: value[rows] for name, value in self.cond.items()}, self.uncond)


# name: (diffusers' class, what it needs beside the model's noise schedule). Table 10's seven, and two for few-step models.
# Latents have no bounds, so nothing is clipped; PNDM without Runge-Kutta warm-up is what Stable Diffusion calls PLMS.
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

PRESETS = {
    "sdxl": Preset("stabilityai/stable-diffusion-xl-base-1.0", 5.5, 1.0, Schedule("ddim", 10)),
    "dreamshaper-xl-turbo": Preset(
        "lykon/dreamshaper-xl-v2-turbo", 3.5, 1.0, Schedule("dpm-solver-multistep", 4)
    ),
    "hunyuan-dit": Preset("Tencent-Hunyuan/HunyuanDiT-Diffusers", 5.0, 1.0, Schedule("ddim", 10)),
}

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_base(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str | torch.device = "cpu",
    precision: str | None = None,
    controlnet: str | Path | None = None,
) -> Base:
    """Load a base model: SDXL and what descends from it, SD 1.x, SD 2.x, Hunyuan-DiT.

    Args:
        source: a diffusers folder, a single-file checkpoint, or a hub id (``owner/name``), which is fetched if it is
            not in the hub's cache yet.
        config: for a single file only, which holds neither tokenizer nor settings: a diffusers folder or hub id of a model of the
            same kind.
        device: where the network predicts; every part goes there.
        precision: ``fp32``, ``fp16`` or ``bf16``; None for fp32 on the CPU and fp16 elsewhere. An autoencoder that
            overflows in half precision (``force_upcast``) stays in fp32.
        controlnet: a ControlNet for this model, folder or hub id.

    Raises:
        InputError: nothing is there, it cannot be read, or it is a model of another kind.
    """
    raise NotImplementedError


def move(base: Base, part: str, device: str | torch.device) -> None:
    """Take the ``text`` encoders, the ``network`` or the ``vae`` to a device; the rest stays where it is."""
    raise NotImplementedError


def fingerprint(base: Base) -> str:
    """A checksum of the network's weights and noise schedule: two bases with the same one make the same images."""
    raise NotImplementedError


def encode(base: Base, prompts: Sequence[str], *, batch: int = 32) -> Prompts:
    """Encode prompts, ``batch`` at a time, with the text encoders wherever they are; the result is on ``base.device``.

    As the model's own pipeline does it: one chunk of T tokens (longer prompts are cut, with a warning from diffusers),
    parentheses are no weights. The unconditional branch is SDXL's zeroed embedding, the empty prompt for the others.
    """
    raise NotImplementedError


def latent_shape(base: Base, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
    """(C, h, w) of the latent of an image of height × width pixels, the network's own size by default.

    Raises:
        InputError: for sides that are no multiple of what the model can do.
    """
    raise NotImplementedError


def initial_noise(
    base: Base, seeds: Sequence[int], height: int | None = None, width: int | None = None
) -> Tensor:
    """Unit-variance noise [N, C, h, w], one seed per image, on the CPU, as ComfyUI draws it for a batch of one."""
    raise NotImplementedError


def levels(base: Base, schedule: Schedule) -> list[Level]:
    """The noise level of each step, noisiest first: what :func:`npnet_core.redenoise.redenoise` goes down and up on."""
    raise NotImplementedError


def evaluations(base: Base, schedule: Schedule) -> int:
    """Guided predictions that one image costs (Heun: 2n - 1, PNDM: n + 1)."""
    raise NotImplementedError


def branches(base: Base, cfg: float) -> int:
    """Rows of the network that one guided prediction costs: 1 at cfg 1 or if the guidance is an input, else 2."""
    raise NotImplementedError


def shares_first(base: Base, schedule: Schedule) -> bool:
    """Whether a schedule begins with a prediction at (noise, first level), so that ``first_denoised`` can be shared."""
    raise NotImplementedError


def predict(
    base: Base, x: Tensor, t: float, prompts: Prompts, cfg: float, control: Tensor | None = None
) -> Tensor:
    """The network's guided raw output (:attr:`Base.prediction`), fp32.

    Args:
        x: [B, C, h, w] in the variance-preserving form.
        t: timestep.
        prompts: B of them.
        cfg: guidance scale; 1 evaluates one branch.
        control: [B or 1, 3, H, W] in 0..1, the ControlNet's picture.
    """
    raise NotImplementedError


def denoiser(base: Base, prompts: Prompts, control: Tensor | None = None) -> Denoiser:
    """The ``denoise(x, level, cfg)`` of :mod:`npnet_core.redenoise`, for B prompts and latents."""
    raise NotImplementedError


def sample(
    base: Base,
    noise: Tensor,
    prompts: Prompts,
    schedule: Schedule,
    cfg: float,
    *,
    seeds: Sequence[int] | None = None,
    first_denoised: Tensor | None = None,
    control: Tensor | None = None,
) -> Tensor:
    """Denoise: latents [B, C, h, w], fp32, on ``base.device``.

    Args:
        noise: [B, C, h, w], unit variance.
        prompts: B of them.
        seeds: one per image, needed by samplers that draw fresh noise on the way; each image's stream goes on behind
            the one its initial noise was drawn from, so an image does not depend on its batch.
        first_denoised: [K ≤ B, C, h, w], what ``denoiser(...)(noise, levels(...)[0], cfg)`` said for the first K images
            already (where :func:`shares_first`): only the others are evaluated at the first step.
        control: as for :func:`predict`.

    Raises:
        InputError: a sampler that needs seeds got none.
    """
    raise NotImplementedError


def decode(base: Base, latents: Tensor, *, batch: int = 4) -> Tensor:
    """Images [B, H, W, 3] in 0..1, fp32, on the CPU, decoded ``batch`` at a time wherever the autoencoder is."""
    raise NotImplementedError
