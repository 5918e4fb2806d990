"""How noise is re-denoised: what collecting pairs and the method ``inversion`` of a comparison have in common."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from npnet_core.errors import InputError
from npnet_core.redenoising import Redenoised, redenoise
from trainer import bases
from trainer.bases import Base, Prompts, Schedule


@dataclass(frozen=True, kw_only=True)
class Redenoising:
    """Settings of :func:`npnet_core.redenoising.redenoise`.

    Args:
        cfg: guidance on the way down (w_l).
        inversion_cfg: guidance on the way back (w_w).
        rounds, inversion, depth: as there.

    Raises:
        InputError: for no round.
    """

    cfg: float = 5.5
    inversion_cfg: float = 1.0
    rounds: int = 1
    inversion: str = "exact"
    depth: int = 1

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"Re-denoising {self.rounds} times makes no pair: use at least 1 round.")

    def __str__(self) -> str:
        rounds = f"{self.rounds} rounds" if self.rounds > 1 else "1 round"
        depth = f", {self.depth} steps deep" if self.depth > 1 else ""
        way = f"guidance {self.cfg:g} down and {self.inversion_cfg:g} back"
        return f"{way}{depth}, {rounds}, {self.inversion} inversion"

    def on(self, schedule: Schedule) -> Schedule:
        """The schedule that noise is re-denoised on for images that are sampled on this one: the same."""
        return schedule

    def redenoised(self, base: Base, prompts: Prompts, noise: Tensor, schedule: Schedule) -> Redenoised:
        """Noise [B, C, h, w] of unit variance for B prompts, between the first levels of the base model's schedule; by
        its sibling, if it has one.
        """
        bases.take_turn(base, "network")  # and its sibling's
        return redenoise(
            bases.denoiser(base.sibling or base, prompts),
            noise.to(base.device),
            bases.levels(base, schedule, tuple(noise.shape[1:])),
            cfg=self.cfg,
            inversion_cfg=self.inversion_cfg,
            rounds=self.rounds,
            inversion=self.inversion,
            depth=self.depth,
        )


def check_redenoising(base: Base) -> None:
    """Raise InputError for a model whose guidance is built in: re-denoising folds a difference of guidances into a
    noise, and without one nothing but the inversion's error."""
    if (base.sibling or base).guidance == "none":
        raise InputError(
            f"{base.source} has its guidance built in, so re-denoising with it folds none into a noise: name the model "
            "that it was distilled from, which then makes the pairs (--redenoise-with), or if it has none built in, "
            "the --preset of its base model."
        )


REDENOISING = Redenoising()  # the paper's for SDXL
