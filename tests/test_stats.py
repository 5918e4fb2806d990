"""Statistics against scipy, and against cases small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from trainer.stats import bootstrap_mean, compare, holm, sign_test, wilson


@given(st.integers(1, 3000), st.floats(0, 1))
def test_wilson_is_scipys(n, share):
    successes = round(share * n)
    expected = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(0, 3000), st.floats(0, 1))
def test_sign_test_is_scipys(n, share):
    above = round(share * n)
    expected = scipy.stats.binomtest(above, n).pvalue if n else 1.0
    assert sign_test(above, n) == pytest.approx(expected, rel=1e-6, abs=1e-250)


def test_sign_test_by_hand():
    assert sign_test(3, 3) == pytest.approx(2 / 8)
    assert sign_test(1, 4) == pytest.approx(2 * 5 / 16)


def test_bootstrap_is_scipys_to_its_own_error():
    values = np.random.default_rng(1).exponential(size=200)
    expected = scipy.stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=2)
    spread = values.std() / np.sqrt(len(values))
    low, high = expected.confidence_interval
    assert bootstrap_mean(values) == pytest.approx((low, high), abs=0.1 * spread)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_compare_counts_ties_half():
    result = compare([0, 0, 0, 0], [1, 1, -1, 0])
    assert (result.n, result.ties, result.wins, result.difference) == (4, 1, 2.5 / 4, 0.25)
    assert result.p == pytest.approx(1.0)  # 2 of 3


def test_compare_is_antisymmetric():
    a, b = np.random.default_rng(0).normal(size=(2, 100))
    forth, back = compare(a, b), compare(b, a)
    assert forth.wins == pytest.approx(1 - back.wins)
    assert forth.wins_low == pytest.approx(1 - back.wins_high)
    assert forth.difference == pytest.approx(-back.difference)
    assert forth.p == pytest.approx(back.p)


@pytest.mark.parametrize(("a", "b"), [([1], [1, 2]), ([], []), ([float("nan")], [1])])
def test_what_cannot_be_compared(a, b):
    with pytest.raises(ValueError, match="Scores"):
        compare(a, b)
