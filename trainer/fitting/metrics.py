"""How well a net does while it is fitted: its error against the identity's, and its speed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.distributed import Process


class Seen(NamedTuple):
    """What is kept of one batch: its pairs, and per pair the squared error of the net and of the identity."""

    indices: list[int]
    error: Tensor  # [B]
    identity: Tensor  # [B]


class Meter:
    """Errors and speed of the steps since the last row."""

    def __init__(self):
        self._seen: list[Seen] = []
        self._since = time.perf_counter()  # later by the length of every pause

    def add(self, seen: list[Seen]) -> None:
        self._seen += seen

    def row(self, process: Process) -> dict[str, float]:
        """The figures of all processes together; the next row starts here."""
        sums = process.sum(totals(self._seen))
        now = time.perf_counter()
        speed = sums[2].item() / (now - self._since)
        self._seen, self._since = [], now
        return errors("train", sums) | {"samples_per_second": speed}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in the block does not count for the speed."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


def totals(seen: Sequence[Seen]) -> Tensor:
    """[3]: sum of the net's errors, sum of the identity's, number of pairs."""
    return torch.tensor(
        [
            sum(each.error.sum().item() for each in seen),
            sum(each.identity.sum().item() for each in seen),
            sum(len(each.error) for each in seen),
        ],
        dtype=torch.float64,
    )


def errors(name: str, total: Tensor) -> dict[str, float]:
    """Mean squared errors and the share of the target's change that the net explains, 1 − MSE / MSE of the identity."""
    error, identity, count = total.tolist()
    return {
        f"{name}_mse": error / count,
        f"{name}_identity_mse": identity / count,
        f"{name}_explained": 1 - error / identity if identity else math.nan,
    }
