"""Re-denoising (Stage I of the paper): DDIM, its inversion and guidance as pure functions of a denoiser.

Every model is read in one form: a latent at noise level (alpha, sigma) is ``x = alpha * denoised + sigma * eps``.
diffusers' models keep alpha² + sigma² = 1, ComfyUI holds the latents of the same models at alpha = 1, and flow
models go in a straight line, alpha = 1 - sigma. Compute in fp32 or fp64 and let the denoiser cast: the change that
is wanted here is a difference of predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from .errors import InputError

INVERSIONS = ("exact", "released")
PREDICTIONS = ("epsilon", "v_prediction", "flow_prediction")  # diffusers' names


@dataclass(frozen=True)
class Level:
    """A noise level: x = alpha * denoised + sigma * eps, and ``t``, what the network is told about it."""

    alpha: float
    sigma: float
    t: float  # diffusers: the timestep; ComfyUI: sigma

    @classmethod
    def diffusion(cls, alpha_cumprod: float, t: float) -> Level:
        """Variance preserving, as diffusers counts: ``alphas_cumprod[t]`` in 0..1 at timestep t."""
        return cls(math.sqrt(alpha_cumprod), math.sqrt(1 - alpha_cumprod), t)

    @classmethod
    def exploding(cls, sigma: float) -> Level:
        """Variance exploding, as ComfyUI holds the latents of epsilon and v models: x = denoised + sigma * eps."""
        return cls(1.0, sigma, sigma)

    @classmethod
    def flow(cls, sigma: float) -> Level:
        """Rectified flow, sigma in 0..1: x = (1 - sigma) * denoised + sigma * eps."""
        return cls(1 - sigma, sigma, sigma)

    @property
    def scale(self) -> float:
        """√(alpha² + sigma²): x / scale is x in the variance-preserving form."""
        return math.hypot(self.alpha, self.sigma)


Denoiser = Callable[[Tensor, Level, float], Tensor]
"""``denoise(x, level, cfg) -> denoised``, like x: the guided prediction of the clean latent. At cfg 1 one branch is
enough."""


def guide(uncond: Tensor, cond: Tensor, cfg: float) -> Tensor:
    """Classifier-free guidance (eq. 3 with cfg = ω + 1, as diffusers and ComfyUI count it; 1 is ``cond`` alone).

    Linear, so it does not matter whether the predictions are eps, v, velocities or denoised latents.
    """
    return uncond + cfg * (cond - uncond)


def denoised_from(prediction: Tensor, x: Tensor, level: Level, kind: str) -> Tensor:
    """The clean latent that a network's raw output stands for.

    Args:
        prediction: the output at (x, level), like x.
        level: in the form that the network was trained on (for ``epsilon`` any).
        kind: ``epsilon`` (eps), ``v_prediction`` (alpha * eps - sigma * denoised, variance preserving) or
            ``flow_prediction`` (eps - denoised, rectified flow).

    Raises:
        InputError: for another kind.
    """
    alpha, sigma = level.alpha, level.sigma
    if kind == "epsilon":
        return (x - sigma * prediction) / alpha
    if kind == "v_prediction":
        return alpha * x - sigma * prediction
    if kind == "flow_prediction":
        return x - sigma * prediction
    raise InputError(f"The model predicts {kind!r}, which is not known here: use one of {', '.join(PREDICTIONS)}.")


def ddim(x: Tensor, denoised: Tensor, start: Level, end: Level) -> Tensor:
    """x at ``start`` → x at ``end``: keep the predicted clean latent and the predicted noise, mix them anew.

    Towards less noise this is a DDIM step (eq. 1), towards more noise its inversion (eq. 2), for a flow model
    Euler's step. Nothing is divided by alpha, so flow's alpha = 0 is as good a level as any; ``start.sigma`` must
    not be 0.
    """
    return end.alpha * denoised + end.sigma * _eps(x, denoised, start)


class Redenoised(NamedTuple):
    """What re-denoising returns, both like x."""

    target: Tensor  # x'_T
    first_denoised: Tensor  # denoise(x, levels[0], cfg): sampling the source itself need not compute it again


def redenoise(
    denoise: Denoiser,
    x: Tensor,
    levels: Sequence[Level],
    *,
    cfg: float = 5.5,
    inversion_cfg: float = 1.0,
    rounds: int = 1,
    inversion: str = "exact",
) -> Redenoised:
    """x'_T = DDIM-Inversion(DDIM(x_T; cfg); inversion_cfg), ``rounds`` times (eq. 4, Algorithm 1).

    Two guided predictions per round: three rows per image where cfg 1 evaluates one branch.

    Args:
        denoise: the guided denoiser.
        x: [B, C, H, W] at ``levels[0]``; never changed.
        levels: the first levels of the sampling schedule, noisiest first. ``exact`` reads two, ``released`` three:
            the third is as many timesteps below the second as that is below the first (2·t₁ - t₀).
        cfg, inversion_cfg: guidance on the way down (w_l) and on the way back (w_w).
        rounds: how often the result is re-denoised again.
        inversion: ``exact`` is the paper's formula (eq. 12). ``released`` is what the authors' released code
            computes: its inversion predicts the noise as if x were still at the first level, and then steps from
            the third level to the second. That code is for epsilon models; for v models eps is taken over likewise
            and flow models are refused.

    Raises:
        InputError: as :func:`check_levels`, and for ``rounds`` below 1.
    """
    check_levels(levels, inversion)
    if rounds < 1:
        raise InputError(f"Re-denoising {rounds} times makes no pair: use at least 1 round.")
    target, first_denoised = x, None
    for _ in range(rounds):
        denoised = denoise(target, levels[0], cfg)
        if first_denoised is None:
            first_denoised = denoised
        lower = ddim(target, denoised, levels[0], levels[1])
        if inversion == "exact":
            target = ddim(lower, denoise(lower, levels[1], inversion_cfg), levels[1], levels[0])
        else:
            target = _released_inversion(denoise, lower, levels, inversion_cfg)
    return Redenoised(target, first_denoised)


def check_levels(levels: Sequence[Level], inversion: str = "exact") -> None:
    """Refuse noise levels that cannot be re-denoised between, before a model is loaded for them.

    Raises:
        InputError: for an unknown inversion; for too few levels; if they do not fall or the second has no noise
            left; for flow levels with ``released``.
    """
    if inversion not in INVERSIONS:
        raise InputError(f"Inversion {inversion!r} is not known: use one of {', '.join(INVERSIONS)}.")
    needed = 2 if inversion == "exact" else 3
    if len(levels) < needed:
        raise InputError(
            f"Re-denoising ({inversion}) needs {needed} noise levels and got {len(levels)}: "
            "use a schedule of more steps."
        )
    levels = levels[:needed]
    falling = all(a.sigma * b.alpha > b.sigma * a.alpha for a, b in pairwise(levels))
    if not falling or not levels[1].sigma > 0:
        sigmas = ", ".join(f"{level.sigma:g}" for level in levels)
        raise InputError(
            f"Re-denoising needs falling sigmas of which the second is above 0, but they are {sigmas}: "
            "use a sampling schedule of at least two steps, noisiest first."
        )
    diffusion = all(level.alpha == 1 or math.isclose(level.scale, 1, rel_tol=1e-4) for level in levels)
    if inversion == "released" and not diffusion:
        raise InputError("Inversion 'released' does not exist for flow models: use 'exact'.")


def _eps(x: Tensor, denoised: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * denoised) / level.sigma


def _released_inversion(denoise: Denoiser, x: Tensor, levels: Sequence[Level], cfg: float) -> Tensor:
    """x at ``levels[1]`` → x'_T at ``levels[0]``, one step off, in the variance-preserving form it was written for."""
    first, second, third = levels[:3]
    unit = x / second.scale
    eps = _eps(unit * first.scale, denoise(unit * first.scale, first, cfg), first)
    denoised = denoised_from(eps, unit * third.scale, third, "epsilon")
    return (second.alpha * denoised + second.sigma * eps) * (first.scale / second.scale)
