"""Which pairs a dataset has: the prompts, the seeds that each of them gets, and every worker's share."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from npnet_core.npd import PairKey


def seed_range(seeds: Sequence[int]) -> range:
    """First and last seed → all of them."""
    return range(seeds[0], seeds[-1] + 1)


def pair_keys(prompts: Sequence[str], seeds: range, count: int, shape: tuple[int, int, int]) -> list[PairKey]:
    """Every pair of a dataset: ``count`` seeds for each prompt, those of one prompt side by side."""
    return [PairKey(prompt, seed, shape) for prompt in prompts for seed in draw_seeds(prompt, seeds, count)]


def draw_seeds(prompt: str, seeds: range, count: int) -> list[int]:
    """``count`` different seeds that follow from the prompt alone, uniform; asking for more keeps those there were."""
    generator = random.Random(prompt)  # the two functions whose numbers Python promises to keep: seed() and random()
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[seeds[int(generator.random() * len(seeds))]] = None
    return list(drawn)


def share_of(keys: Sequence[PairKey], worker: int, workers: int) -> list[PairKey]:
    """The pairs of every n-th prompt, so that no two workers encode the same one."""
    by_prompt = itertools.groupby(keys, key=lambda key: key.prompt)
    return [key for i, (_, group) in enumerate(by_prompt) if i % workers == worker for key in group]
