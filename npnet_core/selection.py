"""Selection by raw scores, as pure functions: the paper's of pairs, the best of N for images."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .errors import InputError

Scores = TypeVar("Scores", Tensor, np.ndarray)


def keep_pair(source_scores: Scores, target_scores: Scores, margin: float) -> Scores:
    """The paper's selection: a pair is kept if ``source + margin < target``.

    Args:
        source_scores: scores of the images from source noises, any shape.
        target_scores: scores of the images from target noises, the same shape.
        margin: by how much the target has to be better, in the scorer's units; the paper tries 0 to 0.02 for HPSv2.

    Returns:
        What is kept, elementwise. Scorers are combined by ``&``: a pair is kept only if every one agrees.

    Raises:
        InputError: for different shapes or a NaN.
    """
    if source_scores.shape != target_scores.shape:
        raise InputError(
            f"Source scores {list(source_scores.shape)} and target scores {list(target_scores.shape)} do not match: "
            "give one of each per pair."
        )
    if margin != margin or not bool(((source_scores == source_scores) & (target_scores == target_scores)).all()):
        raise InputError("NaN came among the scores or as margin: score the images again.")
    return source_scores + margin < target_scores


def top_k(scores: Tensor, k: int) -> Tensor:
    """Indices of the k highest of ``scores`` [B], best first; of equal ones the earlier first.

    Raises:
        InputError: for a NaN, or unless 1 ≤ k ≤ B.
    """
    if not 1 <= k <= len(scores):
        raise InputError(f"The best {k} of {len(scores)} images cannot be picked: ask for 1 to {len(scores)}.")
    if scores.isnan().any():
        raise InputError("NaN came among the scores: score the images again.")
    return torch.argsort(scores, descending=True, stable=True)[:k]
