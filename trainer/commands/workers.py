"""The flag ``--worker``: which part of the work is this process's."""

from __future__ import annotations

import os

from npnet_core.errors import InputError


def this_worker(worker: str | None) -> tuple[int, int]:
    """(i, n): from ``--worker i/n``, else as torchrun says, else the only one.

    Raises:
        InputError: if it is not i/n with 0 ≤ i < n.
    """
    if worker is None:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    number, _, count = worker.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InputError(f"--worker {worker} came: give I/N with I from 0 to N - 1, such as 0/4.")
    return int(number), int(count)
