"""Whatever is made of one item after another, made ahead of time in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item, Made = TypeVar("Item"), TypeVar("Made")


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """``make(item)`` of each item, in order, while threads work on those to come.

    LAPACK and copies run outside Python's lock, and nothing has to be pickled or shared between processes. Each thread
    uses one core, so the numbers do not depend on how many there are.
    """
    cores = torch.get_num_threads()  # of this thread; asking keeps what the others set from reaching it
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(cores)  # for threads to come
