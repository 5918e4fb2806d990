"""Paired comparisons: is B better than A on the same prompts and seeds, and how sure is that?

Pictures of one prompt are related: a method may suit it or not. Where there are several seeds of a prompt, n pairs
therefore tell less of other prompts than n prompts would.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Comparison:
    """B against A over n pairs. Intervals are 95 %.

    Attributes:
        design_effect: of the wins, see :func:`design_effect`; Wilson's interval and p are those of n / design_effect
            independent pairs.
        wins: share of pairs in which B is higher, ties counted half; ``wins_low``, ``wins_high`` after Wilson.
        difference: mean of B − A; ``difference_low``, ``difference_high`` by paired bootstrap, of whole groups.
        p: of the two-sided exact sign test, ties left out; not corrected, see :func:`holm`.
    """

    n: int
    ties: int
    design_effect: float
    wins: float
    wins_low: float
    wins_high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float


def compare(
    a: Sequence[float], b: Sequence[float], groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Comparison:
    """Compare two methods' scores of the same prompts and seeds, in the same order.

    Args:
        groups: what each pair belongs to, its prompt; None for independent pairs.

    Raises:
        ValueError: if they differ in number, are none, or are not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"Scores of shapes {a.shape} and {b.shape} came: give two lists of equal length.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("Scores have NaN or infinite values.")
    n, difference = len(a), b - a
    numbers = np.arange(n) if groups is None else numbered(groups)
    won = (difference > 0) + (difference == 0) / 2
    above, ties, wins = int((difference > 0).sum()), int((difference == 0).sum()), float(won.sum())
    effect = design_effect(won, numbers)
    low, high = wilson(wins / effect, n / effect)
    mean_low, mean_high = bootstrap_mean(difference, numbers, seed)
    return Comparison(
        n=n,
        ties=ties,
        design_effect=effect,
        wins=wins / n,
        wins_low=low,
        wins_high=high,
        difference=difference.mean(),
        difference_low=mean_low,
        difference_high=mean_high,
        p=sign_test(round(above / effect), round((n - ties) / effect)),
    )


def numbered(groups: Sequence[Hashable]) -> np.ndarray:
    """The number of each one's group, 0, 1, … in the order of their first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def design_effect(values: np.ndarray, groups: np.ndarray) -> float:
    """How much larger the variance of a mean is when whole groups are drawn than when single values are, at least 1.

    With G groups, n values and s_g = the sum of a group's deviations from the mean, G/(G−1) Σ s_g² / n over Var / n
    (Kish). A single group tells nothing of others: its values are then taken as independent.

    Args:
        values: [n].
        groups: [n], numbers from 0.
    """
    count, n, variance = groups.max() + 1, len(values), values.var(ddof=1) if len(values) > 1 else 0.0
    if count in (1, n) or variance == 0:
        return 1.0
    sums = np.bincount(groups, values - values.mean())
    return max(1.0, float(count / (count - 1) * (sums**2).sum() / n / variance))


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share: (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)."""
    p, z2 = successes / n, Z**2
    centre = p + z2 / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return max(0.0, low), min(1.0, high)


def bootstrap_mean(
    values: np.ndarray, groups: np.ndarray | None = None, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float]:
    """95 % percentile interval of the mean, from resamples with replacement of the values or of whole groups of them.

    Args:
        values: [n].
        groups: [n], numbers from 0; a single group's values are drawn one by one.
    """
    rng = np.random.default_rng(seed)
    if groups is None or groups.max() == 0:
        groups = np.arange(len(values))
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    means = []
    for done in range(0, resamples, 500):  # a few hundred at a time keep memory small
        size = min(500, resamples - done), len(sums)
        drawn = rng.integers(len(sums), size=size, dtype=np.int32)  # several times faster than int64
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
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
