"""Two processes of one thread each: on two cores they compare nets a quarter faster than one of two threads.

Collecting gains less, a twentieth: ``python -m benchmarks.workers`` measures both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import wait

from npnet_core.errors import InputError

WORKERS = 2


def in_parallel(work: Callable[..., object], *args, **kwargs) -> None:
    """``work(*args, worker=(i, WORKERS), **kwargs)`` in processes of its own, each with a progress bar of its own.

    If this process is stopped (SIGKILL apart), or one of them fails, the others are stopped as by Ctrl-C.

    Args:
        work: a module's function. What it makes it leaves on disk.
        args, kwargs: what can be pickled.

    Raises:
        ChildProcessError: if a process failed, which has said why, or was killed.
    """
    context = multiprocessing.get_context("spawn")  # forked ones would hang in their threads
    processes = [context.Process(target=_run, args=(worker, work, args, kwargs)) for worker in range(WORKERS)]
    try:
        for process in processes:
            process.start()
        while not any(process.exitcode for process in processes):
            if not (running := [process.sentinel for process in processes if process.exitcode is None]):
                return
            wait(running)
        codes = [process.exitcode for process in processes]
    finally:
        for process in (process for process in processes if process.pid is not None):
            process.terminate()
            process.join()
    if any(code and code < 0 for code in codes):  # by a signal
        raise ChildProcessError(
            "One of the processes was killed, as systems do that run out of memory: make room, then start again, and "
            "it goes on where it was."
        )
    raise ChildProcessError("One of the processes failed and has said why: see above.")


def _stop(number: int, frame: object) -> None:
    """Once only: Ctrl-C reaches every process, then the first one stops them too, while they write what is finished."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(worker: int, work: Callable[..., object], args: tuple, kwargs: dict) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    os.environ["LOCAL_RANK"] = str(worker)  # the line of its progress bar
    try:
        import torch

        torch.set_num_threads(1)
        work(*args, worker=(worker, WORKERS), **kwargs)
    except (InputError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
