"""One batch of Algorithm 1 of the paper: noises, their images, their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from npnet_core.npd import PairKey
from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base, Prompts
from trainer.collecting.recipe import Recipe


@dataclass(frozen=True)
class Pairs:
    """One batch.

    Args:
        source, target: noises [B, C, h, w].
        images: [B, H, W, 3] in 0..1 of both; None if nobody needed them.
        scores: scorer → raw scores [B] of both.
    """

    source: Tensor
    target: Tensor
    images: tuple[Tensor, Tensor] | None
    scores: dict[str, tuple[Tensor, Tensor]]


def make_pairs(
    base: Base,
    scorers: Sequence[Scorer],
    recipe: Recipe,
    keys: Sequence[PairKey],
    prompts: Prompts,
    *,
    with_images: bool = False,
) -> Pairs:
    """One batch of Algorithm 1: both noises, and if there are scorers or ``with_images``, both images and their scores.

    At n steps a pair costs 2n + ½ guided evaluations, because the first denoising step serves both the pair and the
    source's image, and every further round 1½ more; 1½ per round without images. Every step of depth costs as much as a
    round, and ½ more where fixed points are sought.
    """
    seeds = [key.seed for key in keys]
    source = bases.initial_noise(base, seeds, recipe.height, recipe.width).to(base.device)
    target, first_denoised = recipe.redenoised(base, prompts, source, recipe.schedule)
    if not scorers and not with_images:
        return Pairs(source, target, None, {})
    shared = base.sibling is None and bases.shares_first(base, recipe.schedule)
    both = [*range(len(keys)), *range(len(keys))]
    latents = bases.sample(
        base,
        torch.cat([source, target]),
        prompts[both],
        recipe.schedule,
        1.0 if base.guidance == "none" else recipe.cfg,
        seeds=seeds + seeds,
        first_denoised=first_denoised if shared else None,
    )
    images = bases.decode(base, latents, batch=len(latents))
    texts = [keys[i].prompt for i in both]
    scores = {scorer.kind: scorer.score(images, texts).chunk(2) for scorer in scorers}
    return Pairs(source, target, images.chunk(2), scores)
