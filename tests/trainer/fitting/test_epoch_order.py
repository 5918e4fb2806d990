"""In which order a fit sees its pairs."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainer.fitting.epoch_order import samples


@given(count=st.integers(1, 20), size=st.integers(1, 30), seed=st.integers(0, 3), epochs=st.integers(1, 4))
def test_every_epoch_sees_every_pair_once_however_it_is_cut(count, size, seed, epochs):
    end = count * epochs
    order = [i for start in range(0, end, size) for i in samples(start, min(start + size, end), count, seed)]
    assert order == samples(0, end, count, seed)
    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(samples(20 * epoch, 20 * epoch + 20, 20, seed)) for epoch in range(5) for seed in range(5)}
    assert len(orders) == 25
    places = Counter(i for order in orders for i in order[:5])
    assert len(places) == 20  # every pair comes early in some of them
