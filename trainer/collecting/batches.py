"""Pairs that are made together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from npnet_core.npd import PairKey
from trainer import bases
from trainer.bases import Base, Prompts

TURN = 64


def batches(keys: Sequence[PairKey], size: int) -> Iterator[list[PairKey]]:
    """At most ``size`` neighbours at a time. A prompt is split between batches only if one cannot hold it, and then
    shares none with another: so the numbers of a batch do not depend on which batches this process has made before.
    """
    batch: list[PairKey] = []
    for _, group in itertools.groupby(keys, key=lambda key: key.prompt):
        pairs = list(group)
        if batch and len(batch) + len(pairs) > size:
            yield batch
            batch = []
        if len(pairs) > size:
            yield from (pairs[i : i + size] for i in range(0, len(pairs), size))
        else:
            batch += pairs
    if batch:
        yield batch


def encoded(base: Base, chunks: Sequence[Sequence[PairKey]]) -> Iterator[tuple[Sequence[PairKey], Prompts]]:
    """Each chunk of :func:`batches` with its prompts; a distinct prompt is encoded once, and so is the empty one. Where
    text encoders and network take turns on the device, those of :data:`TURN` chunks are encoded in one.
    """
    texts, prompts, uncond = [], None, None
    turn = TURN if base.in_turns else 1
    for start in range(0, len(chunks), turn):
        told = []
        for chunk in chunks[start : start + turn]:
            distinct = list(dict.fromkeys(key.prompt for key in chunk))
            if distinct != texts:
                texts, prompts = distinct, bases.encode(base, distinct, uncond=uncond)
                uncond = prompts.uncond
            told.append((chunk, prompts[[texts.index(key.prompt) for key in chunk]]))
        yield from told
