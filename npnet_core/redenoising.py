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

INVERSIONS = {
    "exact": "the paper's formula",
    "released": "what its authors' code computes, one step off",
    "fixed-point": "undoes unguided steps more closely, for one more evaluation each",
}
INVERSIONS_HELP = "; ".join(f"{name}: {words}" for name, words in INVERSIONS.items())
ITERATIONS = 1  # of a fixed-point inversion; docs/experiments.md has what more of them gain
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


def eps_from(x: Tensor, denoised: Tensor, level: Level) -> Tensor:
    """The noise in x where its clean latent is ``denoised``; ``level.sigma`` must not be 0."""
    return (x - level.alpha * denoised) / level.sigma


def ddim(x: Tensor, denoised: Tensor, start: Level, end: Level) -> Tensor:
    """x at ``start`` → x at ``end``: keep the predicted clean latent and the predicted noise, mix them anew.

    Towards less noise this is a DDIM step (eq. 1), towards more noise its inversion (eq. 2), for a flow model
    Euler's step. Nothing is divided by alpha, so flow's alpha = 0 is as good a level as any; ``start.sigma`` must
    not be 0.
    """
    return end.alpha * denoised + end.sigma * eps_from(x, denoised, start)


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
    depth: int = 1,
) -> Redenoised:
    """x'_T = DDIM-Inversion(DDIM(x_T; cfg); inversion_cfg), ``rounds`` times (eq. 4, Algorithm 1).

    The paper goes one step down; more than one is ours. Two guided predictions per step and round (``fixed-point``:
    three), which are three rows per image (four) where cfg 1 evaluates one branch.

    Args:
        denoise: the guided denoiser.
        x: [B, C, H, W] at ``levels[0]``; never changed.
        levels: the first levels of the sampling schedule, noisiest first; as many are read as
            :func:`levels_needed` says. The third that ``released`` reads is as many timesteps below the second as
            that is below the first (2·t₁ - t₀).
        cfg, inversion_cfg: guidance on the way down (w_l) and on the way back (w_w).
        rounds: how often the result is re-denoised again.
        inversion: ``exact`` is the paper's formula (eq. 12), which predicts the noise at the lower level.
            ``fixed-point`` then looks for the latent at the upper level whose step leads here, predicting there
            :data:`ITERATIONS` times. ``released`` is what the authors' released code computes: its inversion
            predicts the noise as if x were still at the first level, and then steps from the third level to the
            second. That code is for epsilon models and one step; for v models eps is taken over likewise and flow
            models are refused.
        depth: how many steps are taken down, and as many back.

    Raises:
        InputError: as :func:`check_levels`, and for ``rounds`` below 1.
    """
    check_levels(levels, inversion, depth)
    if rounds < 1:
        raise InputError(f"Re-denoising {rounds} times makes no pair: use at least 1 round.")
    steps = list(pairwise(levels[: depth + 1]))
    target, first_denoised = x, None
    for _ in range(rounds):
        for upper, lower in steps:
            denoised = denoise(target, upper, cfg)
            if first_denoised is None:
                first_denoised = denoised
            target = ddim(target, denoised, upper, lower)
        for upper, lower in reversed(steps):
            if inversion == "released":
                target = _released_inversion(denoise, target, levels, inversion_cfg)
            else:
                iterations = ITERATIONS if inversion == "fixed-point" else 0
                target = _inversion(denoise, target, lower, upper, inversion_cfg, iterations)
    return Redenoised(target, first_denoised)


def levels_needed(inversion: str = "exact", depth: int = 1) -> int:
    """How many noise levels re-denoising reads: one more than it takes steps, and ``released`` yet another."""
    return depth + 1 + (inversion == "released")


def evaluations(rounds: int, inversion: str, depth: int) -> int:
    """How many guided predictions re-denoising makes of each image."""
    return rounds * depth * (2 + ITERATIONS * (inversion == "fixed-point"))


def check_levels(levels: Sequence[Level], inversion: str = "exact", depth: int = 1) -> None:
    """Refuse noise levels that cannot be re-denoised between, before a model is loaded for them.

    Raises:
        InputError: for an unknown inversion; a depth below 1, or another than 1 with ``released``; for too few levels;
            if they do not fall or a level that is stepped to has no noise left; for flow levels with ``released``.
    """
    if inversion not in INVERSIONS:
        raise InputError(f"Inversion {inversion!r} is not known: use one of {', '.join(INVERSIONS)}.")
    if depth < 1:
        raise InputError(f"Re-denoising to depth {depth} makes no pair: use a depth of at least 1.")
    if inversion == "released" and depth > 1:
        raise InputError(f"Inversion 'released' is for one step and depth {depth} came: use 'exact' or 'fixed-point'.")
    needed = levels_needed(inversion, depth)
    if len(levels) < needed:
        raise InputError(
            f"Re-denoising ({inversion}, depth {depth}) needs {needed} noise levels and got {len(levels)}: "
            "use a schedule of more steps."
        )
    levels = levels[:needed]
    falling = all(a.sigma * b.alpha > b.sigma * a.alpha for a, b in pairwise(levels))
    if not falling or not levels[depth].sigma > 0:
        sigmas = ", ".join(f"{level.sigma:g}" for level in levels)
        raise InputError(
            f"Re-denoising to depth {depth} needs falling sigmas, the first {depth + 1} above 0, but they are "
            f"{sigmas}: use a sampling schedule of at least {depth + 1} steps, noisiest first."
        )
    diffusion = all(level.alpha == 1 or math.isclose(level.scale, 1, rel_tol=1e-4) for level in levels)
    if inversion == "released" and not diffusion:
        raise InputError("Inversion 'released' does not exist for flow models: use 'exact'.")


def _inversion(denoise: Denoiser, x: Tensor, start: Level, end: Level, cfg: float, iterations: int) -> Tensor:
    """x at ``start`` → the latent at ``end``, the noisier, whose DDIM step leads to x.

    Where it leads depends on what is predicted there; eq. 12 predicts at x instead, and each iteration at the latent
    found so far. What is found is exact once it no longer changes.
    """
    found = ddim(x, denoise(x, start, cfg), start, end)
    for _ in range(iterations):
        found = ddim(x, denoise(found, end, cfg), start, end)
    return found


def _released_inversion(denoise: Denoiser, x: Tensor, levels: Sequence[Level], cfg: float) -> Tensor:
    """x at ``levels[1]`` → x'_T at ``levels[0]``, one step off, in the variance-preserving form it was written for."""
    first, second, third = levels[:3]
    unit = x / second.scale
    eps = eps_from(unit * first.scale, denoise(unit * first.scale, first, cfg), first)
    denoised = denoised_from(eps, unit * third.scale, third, "epsilon")
    return (second.alpha * denoised + second.sigma * eps) * (first.scale / second.scale)
