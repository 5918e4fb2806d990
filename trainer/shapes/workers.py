"""Two processes of one thread each: on two cores they make a third more pictures than one process of two threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager

WORKERS = 2

Parallel = Callable[..., None]
"""``in_parallel(work, *args, **kwargs)``: ``work(*args, worker=(i, WORKERS), **kwargs)`` in every process, each with a
progress bar of its own. ``work`` is a module's function, the rest can be pickled; what it makes it leaves on disk.
Raises what it raises."""


@contextmanager
def parallel() -> Iterator[Parallel]:
    """Processes for the block, which end with it, however it ends."""
    context = multiprocessing.get_context("spawn")  # forked ones would hang in their threads
    pool = ProcessPoolExecutor(WORKERS, context, initializer=_use_one_thread)

    def in_parallel(work: Callable[..., object], *args, **kwargs) -> None:
        futures = [pool.submit(_run, worker, work, args, kwargs) for worker in range(WORKERS)]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()

    try:
        yield in_parallel
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _run(worker: int, work: Callable[..., object], args: tuple, kwargs: dict) -> None:
    os.environ["LOCAL_RANK"] = str(worker)  # the line of its progress bar
    work(*args, worker=(worker, WORKERS), **kwargs)
