"""Statistics against scipy, and against cases small enough to count by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.statistics import bootstrap_mean, compare, design_effect, holm, sign_test, wilson


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


@given(st.integers(1, 300), st.floats(0, 1))
def test_sign_test_counts_coins(n, share):
    """Two tails of Pascal's triangle, in whole numbers."""
    above = round(share * n)
    tail = sum(math.comb(n, k) for k in range(max(above, n - above), n + 1))
    assert sign_test(above, n) == pytest.approx(float(min(Fraction(1), Fraction(2 * tail, 2**n))), rel=1e-9)


def test_sign_test_of_no_coins():
    assert sign_test(0, 0) == 1


@pytest.mark.parametrize(("copies", "zeros", "ones"), [(1, 60, 40), (7, 50, 150)])
def test_bootstrap_of_coins_is_binomial(copies, zeros, ones):
    """The mean of n draws from zeros and ones is Binomial(n, share) / n; groups of equal values are such draws."""
    values = np.repeat([0.0, 1.0], [zeros, ones])
    n = zeros + ones
    expected = scipy.stats.binom.ppf([0.025, 0.975], n, ones / n) / n
    found = bootstrap_mean(np.repeat(values, copies), np.repeat(np.arange(n), copies), resamples=100_000)
    assert found == pytest.approx(expected, abs=1.01 / n)  # a step of the distribution


def test_bootstrap_of_one_value():
    assert bootstrap_mean(np.array([0.5])) == (0.5, 0.5)


def test_bootstrap_is_scipys_to_its_own_error():
    values = np.random.default_rng(1).exponential(size=200)
    expected = scipy.stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=2)
    spread = values.std() / np.sqrt(len(values))
    low, high = expected.confidence_interval
    assert bootstrap_mean(values) == pytest.approx((low, high), abs=0.1 * spread)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)


def test_a_bootstrap_of_groups_draws_them_whole():
    """Every value three times: as sure as the values themselves, not as three times as many."""
    values, groups = np.random.default_rng(1).exponential(size=200), np.arange(200)
    threefold = bootstrap_mean(np.repeat(values, 3), np.repeat(groups, 3))
    assert threefold == pytest.approx(bootstrap_mean(values, groups))
    assert bootstrap_mean(values, groups) == bootstrap_mean(values)
    assert bootstrap_mean(values, np.zeros(200, int)) == bootstrap_mean(values)


def test_design_effect_by_hand():
    """Copies of independent values count once; related ones as a variance of components says, 1 + (m − 1) ρ."""
    rng = np.random.default_rng(2)
    values, groups = rng.normal(size=400), np.arange(400)
    assert design_effect(values, groups) == 1
    assert design_effect(values, np.zeros(400, int)) == 1
    assert design_effect(np.repeat(values, 5), np.repeat(groups, 5)) == pytest.approx(5, rel=0.01)
    related = rng.normal(size=(4000, 1)) + 2 * rng.normal(size=(4000, 6))
    assert design_effect(related.flatten(), np.repeat(np.arange(4000), 6)) == pytest.approx(1 + 5 * 0.2, rel=0.05)


def test_compare_of_copies_is_as_sure_as_of_originals():
    a, b = np.random.default_rng(0).normal(size=(2, 100))
    one = compare(a, b)
    four = compare(np.repeat(a, 4), np.repeat(b, 4), np.repeat(np.arange(100), 4))
    assert (four.n, four.wins, four.design_effect) == (400, one.wins, pytest.approx(4, rel=0.02))
    ends = ["wins_low", "wins_high", "difference_low", "difference_high"]
    assert [getattr(four, end) for end in ends] == pytest.approx([getattr(one, end) for end in ends], abs=2e-3)
    assert four.p == pytest.approx(one.p, abs=0.1)  # whole numbers of coins


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
