"""Selection: the strict inequality, elementwise, and the best k."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from npnet_core.errors import InputError
from npnet_core.selection import keep_pair, top_k

scores = st_numpy.arrays(np.float32, (2, 7), elements=st.floats(-100, 100, width=32))


@given(scores, st.floats(-1, 1, width=32))
def test_keep_pair_is_the_papers_inequality(pair, margin):
    """On arrays and tensors alike; one number at a time in plain Python, in the scores' own precision."""
    source, target = pair
    expected = [bool(np.float32(s + np.float32(margin)) < t) for s, t in zip(source, target, strict=True)]
    assert keep_pair(source, target, margin).tolist() == expected
    assert keep_pair(*torch.from_numpy(pair), margin).tolist() == expected


@given(scores)
def test_no_margin_keeps_each_pair_or_its_reverse_unless_equal(pair):
    kept, reversed_ = keep_pair(pair[0], pair[1], 0.0), keep_pair(pair[1], pair[0], 0.0)
    assert ((kept ^ reversed_) == (pair[0] != pair[1])).all()


def test_equal_scores_are_not_kept():
    ones = torch.ones(3)
    assert not keep_pair(ones, ones, 0.0).any()
    assert keep_pair(ones, ones, -0.1).all()


@pytest.mark.parametrize(
    ("source", "target", "margin", "message"),
    [
        ([1.0, math.nan], [1.0, 2.0], 0.0, "NaN"),
        ([1.0, 2.0], [math.nan, 2.0], 0.0, "NaN"),
        ([1.0], [2.0], math.nan, "NaN"),
        ([1.0, 2.0], [1.0], 0.0, r"\[2\] and target scores \[1\]"),
    ],
)
def test_what_cannot_be_compared(source, target, margin, message):
    for kind in (torch.tensor, np.array):
        with pytest.raises(InputError, match=message):
            keep_pair(kind(source), kind(target), margin)


@given(st_numpy.arrays(np.float32, st.integers(1, 9), elements=st.integers(-3, 3)), st.data())
def test_top_k_is_a_stable_sort(values, data):
    k = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda i: -values[i])[:k]
    assert top_k(torch.from_numpy(values), k).tolist() == expected


@pytest.mark.parametrize(
    ("values", "k", "message"), [([1.0], 0, "1 to 1"), ([1.0], 2, "1 to 1"), ([math.nan], 1, "NaN")]
)
def test_top_k_of_what_is_not_there(values, k, message):
    with pytest.raises(InputError, match=message):
        top_k(torch.tensor(values), k)
