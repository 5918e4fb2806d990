"""What is made ahead of time, in threads."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from trainer.data.prefetch import prefetch


@pytest.mark.parametrize("threads", [1, 3])
def test_prefetching_keeps_the_order_and_looks_prefetch(threads):
    started = []

    def make(item: int) -> int:
        started.append(item)
        time.sleep(0.002 * (item % 3))
        return item * item

    cores = torch.get_num_threads()
    squares = prefetch(make, range(20), threads)
    assert next(squares) == 0
    deadline = time.monotonic() + 5
    while len(started) < 1 + threads and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(started) >= 1 + threads
    assert list(squares) == [i * i for i in range(1, 20)]
    assert torch.get_num_threads() == cores


def test_prefetching_ends_with_its_reader_and_passes_errors_on():
    threads = threading.active_count()
    numbers = prefetch(lambda item: item, range(10**9), 2)
    assert next(numbers) == 0
    numbers.close()
    assert threading.active_count() == threads
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda item: 1 // item, [1, 0, 1], 2))
