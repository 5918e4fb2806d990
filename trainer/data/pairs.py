"""Which pairs of a dataset a net is fitted on: kept by their scores, held out by prompt, in the order of each epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from npnet_core.errors import InputError
from npnet_core.npd import NPDReader
from npnet_core.selection import keep_pair


def select(reader: NPDReader, scorers: Sequence[str], margins: Sequence[float]) -> list[int]:
    """Indices of the pairs that every scorer keeps.

    Args:
        scorers: names as in the dataset, or ``("none",)`` to keep every pair.
        margins: one for each scorer, in its units, or one for all.

    Raises:
        InputError: if a scorer or a score is missing, if margins and scorers do not match, or if no pair is left.
    """
    if len(reader) == 0:
        raise InputError(f"The dataset {reader.folder} has no pairs: collect some first.")
    if tuple(scorers) == ("none",):
        return list(range(len(reader)))
    if len(margins) not in (1, len(scorers)):
        raise InputError(f"{len(margins)} margins came for {len(scorers)} scorers: give one for all or one for each.")
    if not reader.scorers:
        raise InputError(f"The pairs in {reader.folder} have no scores: keep every pair with --scorer none.")
    kept = torch.ones(len(reader), dtype=torch.bool)
    for scorer, margin in zip(scorers, margins * len(scorers) if len(margins) == 1 else margins, strict=True):
        kept &= keep_pair(*reader.scores(scorer).T, margin)
    if not kept.any():
        raise InputError(
            f"None of {len(reader)} pairs is kept by {', '.join(scorers)} at margin {', '.join(map(str, margins))}: "
            "lower --margin or choose other scorers."
        )
    return kept.nonzero().flatten().tolist()


def selecting(reader: NPDReader, scorers: Sequence[str] | None) -> tuple[str, ...]:
    """The names for :func:`select`: those given, or where none are the one that scored the dataset.

    Raises:
        InputError: if none are given and several scored it.
    """
    if scorers is not None:
        return tuple(scorers)
    if len(reader.scorers) > 1:
        raise InputError(
            f"The pairs in {reader.folder} were scored by {', '.join(reader.scorers)}: say with --scorer which of them "
            "select, or none to keep every pair."
        )
    return tuple(reader.scorers)


def hold_out(reader: NPDReader, indices: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(training, validation): the pairs of a share of the prompts, at least one, are held out with all their seeds.

    Which prompts depends on their text and ``seed`` alone, not on their order.

    Raises:
        InputError: for a share outside 0 … 1, or if no prompt is left to train on.
    """
    if not 0 <= share < 1:
        raise InputError(f"A validation share of {share} came: give 0 (none) to less than 1.")
    if share == 0:
        return list(indices), []
    prompts = {reader.records[i].key.prompt for i in indices}
    if len(prompts) == 1:
        raise InputError("All pairs have the same prompt: collect more prompts, or hold none out (--validation 0).")
    count = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    held_out = set(sorted(prompts, key=lambda prompt: _digest(seed, prompt))[:count])
    validation = [i for i in indices if reader.records[i].key.prompt in held_out]
    return [i for i in indices if reader.records[i].key.prompt not in held_out], validation


def limit_pairs(reader: NPDReader, indices: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """At most ``limit`` of the pairs, at random; a smaller limit takes some of a larger one's.

    Raises:
        InputError: for a limit below 1.
    """
    if limit is None:
        return list(indices)
    if limit < 1:
        raise InputError(f"A limit of {limit} pairs came: give at least 1.")
    return sorted(sorted(indices, key=lambda i: _digest(seed, str(reader.records[i].key)))[:limit])


def samples(start: int, stop: int, count: int, seed: int) -> list[int]:
    """Positions of the ``start``-th to ``stop``-th sample of a run over ``count`` pairs: epochs follow each other
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
    generator = torch.Generator().manual_seed(int.from_bytes(_digest(seed, f"epoch {epoch}")[:7], "big"))
    return torch.randperm(count, generator=generator).tolist()


def _digest(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode()).digest()
