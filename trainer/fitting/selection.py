"""Which pairs of a dataset are kept: those whose target every scorer prefers."""

from __future__ import annotations

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
