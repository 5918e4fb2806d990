"""The pairs that are kept → those to train on and those held out, by their prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from npnet_core.errors import InputError
from npnet_core.npd import NPDReader
from trainer.fitting.seeded_hash import seeded_hash


def hold_out(reader: NPDReader, indices: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(training, validation): the pairs of a share of the prompts, at least one, are held out with all their seeds.

    Which prompts depends on their text and ``seed`` alone, not on their order.

    Raises:
        InputError: for a share outside 0 … 1, or if no prompt is left to train on.
    """
    held_out = set(held_out_prompts({reader.records[i].key.prompt for i in indices}, share, seed))
    validation = [i for i in indices if reader.records[i].key.prompt in held_out]
    return [i for i in indices if reader.records[i].key.prompt not in held_out], validation


def held_out_prompts(prompts: Iterable[str], share: float, seed: int) -> list[str]:
    """The share of distinct prompts that :func:`hold_out` holds out, in an order of its own; raises as it."""
    if not 0 <= share < 1:
        raise InputError(f"A validation share of {share} came: give 0 (none) to less than 1.")
    if share == 0:
        return []
    prompts = sorted(set(prompts), key=lambda prompt: seeded_hash(seed, prompt))
    if len(prompts) == 1:
        raise InputError("All have the same prompt: give more prompts, or hold none out (--validation 0).")
    return prompts[: min(max(1, round(share * len(prompts))), len(prompts) - 1)]


def limit_pairs(reader: NPDReader, indices: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """At most ``limit`` of the pairs, at random; a smaller limit takes some of a larger one's.

    Raises:
        InputError: for a limit below 1.
    """
    if limit is None:
        return list(indices)
    if limit < 1:
        raise InputError(f"A limit of {limit} pairs came: give at least 1.")
    return sorted(sorted(indices, key=lambda i: seeded_hash(seed, str(reader.records[i].key)))[:limit])
