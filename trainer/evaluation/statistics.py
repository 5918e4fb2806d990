"""Paired comparisons: is B better than A on the same prompts and seeds, and how sure is that?

Pictures of one prompt are related: a method may suit it or not. Where there are several seeds of a prompt, n pairs
therefore tell less of other prompts than n prompts would.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


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
    """Wilson's 95 % score interval of a share; both may be fractions, see :func:`design_effect`."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def bootstrap_mean(
    values: np.ndarray, groups: np.ndarray | None = None, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float]:
    """95 % percentile interval of the mean, from resamples with replacement of the values or of whole groups of them.

    Args:
        values: [n].
        groups: [n], numbers from 0; a single group's values are drawn one by one.
    """
    from scipy.stats import bootstrap

    if groups is None or groups.max() == 0:
        groups = np.arange(len(values))
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    if len(sums) == 1:
        return float(sums[0]), float(sums[0])
    interval = bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        n_resamples=resamples,
        batch=500,  # at a time, which keeps memory small
        method="percentile",
        rng=seed,
    ).confidence_interval
    return float(interval.low), float(interval.high)


def sign_test(above: int, n: int) -> float:
    """Two-sided exact p of ``above`` or more extreme out of n fair coins; 1 for none."""
    from scipy.stats import binomtest

    return float(binomtest(above, n).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values of a family of comparisons, adjusted, in the same order."""
    from statsmodels.stats.multitest import multipletests

    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []
