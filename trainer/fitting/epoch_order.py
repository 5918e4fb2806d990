"""In which order a run sees its samples: every epoch in one of its own."""

from __future__ import annotations

import torch

from trainer.fitting.seeded_hash import seeded_hash


def samples(start: int, stop: int, count: int, seed: int) -> list[int]:
    """Positions of the ``start``-th to ``stop``-th sample of a run over ``count`` of them: epochs follow each other
    without a gap, each in an order of its own that (seed, epoch) alone decides."""
    chosen = []
    while start < stop:
        epoch, first = divmod(start, count)
        taken = min(stop - start, count - first)
        chosen += epoch_order(count, seed, epoch)[first : first + taken]
        start += taken
    return chosen


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of 0 … count − 1, a pure function of its arguments."""
    generator = torch.Generator().manual_seed(int.from_bytes(seeded_hash(seed, f"epoch {epoch}")[:7], "big"))
    return torch.randperm(count, generator=generator).tolist()
