"""What a net is fitted to, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from npnet_core.architectures import GoldenNet
from trainer.distributed import Process
from trainer.fitting.metrics import Losses


class Objective(Protocol):
    """All that the loop knows of an objective. Samples are numbers, whatever they stand for.

    Attributes:
        unit: what a sample is called in sentences, such as "pair".
        training: the samples that every epoch takes, each once.
        validation: those that are held out.
        hash: of what they stand for: a run goes on with the same only.
    """

    unit: str
    training: Sequence[int]
    validation: Sequence[int]

    @property
    def hash(self) -> str: ...

    def prepare(self, samples: Sequence[int]) -> list:
        """Batches of them, which go through the net one after the other; a pure function, called in threads."""

    def losses(self, model: nn.Module, batch) -> Losses:
        """Of the net, as it is called in training, and of the identity; with gradients."""

    def metrics(self, name: str, total: Tensor) -> dict[str, float]:
        """What the log says of :func:`trainer.fitting.metrics.totals`, its names beginning with ``name``."""

    def validate(self, npnet: GoldenNet, process: Process, batch: int, threads: int) -> dict[str, float]:
        """Metrics over those that are held out, ``batch`` at once; none if there are none."""

    def show(self, npnet: GoldenNet, step: int, rows: Sequence[dict]) -> None:
        """What people look at beside the log, after every look at what is held out; ``rows`` are the log's so far."""

    def stop(self, rows: Sequence[dict]) -> str | None:
        """Why the run had better end here, as the log shows after such a look; None to go on."""

    def progress(self, metrics: dict[str, float]) -> str:
        """A few words beside the progress bar, from the metrics of training."""

    def conclusion(self, metrics: dict[str, float]) -> list[str]:
        """Sentences at the end, from those of validation."""

    def broken(self, samples: Sequence[int]) -> str:
        """Which samples these are whose loss is not finite, and what to do about them."""

    def metadata(self) -> dict[str, str]:
        """What the result's file says of what it learnt from."""
