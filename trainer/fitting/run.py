"""One run of a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from npnet_core.architectures import GoldenNet
from trainer.distributed import Process
from trainer.fitting.objective import Objective
from trainer.fitting.settings import Settings


@dataclass(frozen=True)
class Run:
    """Everything that one run works with; only the weights, their average and the optimizer's state ever change."""

    settings: Settings
    process: Process
    objective: Objective
    npnet: GoldenNet
    average: GoldenNet | None
    optimizer: torch.optim.Optimizer

    @property
    def result(self) -> GoldenNet:
        """The net that is validated and written."""
        return self.npnet if self.average is None else self.average

    @property
    def samples_per_step(self) -> int:
        return self.settings.training.batch * self.settings.training.accumulate * self.process.count

    @property
    def steps(self) -> int:
        return math.ceil(self.settings.training.epochs * len(self.objective.training) / self.samples_per_step)

    def epoch(self, step: int) -> float:
        """How often every sample was seen after so many steps."""
        return step * self.samples_per_step / len(self.objective.training)
