"""Paired comparisons: is B better than A on the same prompts and seeds, and how sure is that?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Comparison:
    """B against A over n pairs. Intervals are 95 %.

    Attributes:
        wins: share of pairs in which B is higher, ties counted half; ``wins_low``, ``wins_high`` after Wilson.
        difference: mean of B − A; ``difference_low``, ``difference_high`` by paired bootstrap.
        p: of the two-sided exact sign test, ties left out; not corrected, see :func:`holm`.
    """

    n: int
    ties: int
    wins: float
    wins_low: float
    wins_high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float


def compare(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Comparison:
    """Compare two methods' scores of the same prompts and seeds, in the same order.

    Raises:
        ValueError: if they differ in number, are none, or are not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"Scores of shapes {a.shape} and {b.shape} came: give two lists of equal length.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("Scores have NaN or infinite values.")
    difference = b - a
    above, ties = int((difference > 0).sum()), int((difference == 0).sum())
    wins = above + ties / 2
    low, high = wilson(wins, len(a))
    mean_low, mean_high = bootstrap_mean(difference, seed)
    return Comparison(
        len(a), ties, wins / len(a), low, high, difference.mean(), mean_low, mean_high, sign_test(above, len(a) - ties)
    )


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share: (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)."""
    p, z2 = successes / n, Z**2
    centre = p + z2 / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return max(0.0, low), min(1.0, high)


def bootstrap_mean(values: np.ndarray, seed: int = 0, resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile interval of the mean, from resamples of the values with replacement."""
    rng = np.random.default_rng(seed)
    n = len(values)
    means = [  # a few hundred resamples at a time keep memory small; int32 draws are several times faster than int64
        values[rng.integers(n, size=(min(500, resamples - done), n), dtype=np.int32)].mean(1)
        for done in range(0, resamples, 500)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def sign_test(above: int, n: int) -> float:
    """Two-sided exact p of ``above`` or more extreme out of n fair coins; 1 for none."""
    tail = max(above, n - above)
    # in logarithms: 2^n overflows at n = 1024
    log_terms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(tail, n + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, log_terms)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values of a family of comparisons, adjusted, in the same order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
