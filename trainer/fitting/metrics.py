"""How well a net does while it is fitted, measured over the steps between two rows of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.distributed import Process


class Losses(NamedTuple):
    """Of one batch: its samples, and for each the loss of the net and of the identity, and what else is logged."""

    samples: list[int]
    loss: Tensor  # [B]
    identity: Tensor  # [B]; zeros where it would cost as much again
    others: Tensor | None = None  # [B, K]

    def detached(self) -> Losses:
        """Without the graph of the gradients."""
        return self._replace(loss=self.loss.detach())


class Meter:
    """Losses and speed of the steps since the last row; ``metrics`` is the objective's."""

    def __init__(self, metrics: Callable[[str, Tensor], dict[str, float]]):
        self._metrics = metrics
        self._losses: list[Losses] = []
        self._since = time.perf_counter()  # later by the length of every pause

    def add(self, losses: list[Losses]) -> None:
        self._losses += losses

    def row(self, process: Process) -> dict[str, float]:
        """The metrics of all processes together; the next row starts here."""
        sums = process.sum(totals(self._losses))
        now = time.perf_counter()
        speed = sums[2].item() / (now - self._since)
        self._losses, self._since = [], now
        return self._metrics("train", sums) | {"samples_per_second": speed}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in the block does not count for the speed."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


def totals(losses: Sequence[Losses]) -> Tensor:
    """[3 + K]: sum of the net's losses, sum of the identity's, number of samples, sums of the others."""
    total = [
        sum(each.loss.sum().item() for each in losses),
        sum(each.identity.sum().item() for each in losses),
        sum(len(each.loss) for each in losses),
    ]
    others = [each.others.double().sum(0).cpu() for each in losses if each.others is not None]
    total = torch.tensor(total, dtype=torch.float64)
    return torch.cat([total, torch.stack(others).sum(0)]) if others else total
