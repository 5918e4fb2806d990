"""What an image costs: seconds and memory, measured while it is made."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

STAGES = ("noise_seconds", "sample_seconds", "decode_seconds", "choose_seconds")


class Stopwatch:
    """Seconds between laps, and the most GPU memory that tensors took since the start."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.since = self._now()

    def lap(self) -> float:
        """Seconds since the last lap, or since the start, the device's work included."""
        before, self.since = self.since, self._now()
        return self.since - before

    def peak_bytes(self) -> int | None:
        """None where PyTorch does not count."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()


@contextmanager
def counted_rows(*networks: nn.Module) -> Iterator[list[int]]:
    """A list that gets, for each call of one of the networks within the block, how many rows it evaluated."""
    rows = []

    def count(_module, _inputs, output) -> None:
        rows.append(len(output[0]))

    hooks = [network.register_forward_hook(count) for network in networks]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def cost_per_image(measured: Sequence[dict]) -> list[dict]:
    """One row per setting and method: medians over the batches, warm-up left out where there is more than that.

    Args:
        measured: a dict per batch: ``setting``, ``method``, ``images`` (how many), ``warm_up`` (whether it was the
            first of its kind in its process), the seconds of each of :data:`STAGES` (0 for one that is not there),
            ``rows`` (of the base model's network, absent in folders of version 0.1.0), ``peak_bytes`` (None where
            PyTorch does not count them; without the weights of nets that the method does not use), ``device``.

    Returns:
        dicts of ``setting``, ``method``, ``device``, ``batch`` (images at once), ``batches`` (how many were measured),
        ``seconds`` per image (of all stages), each stage's alone, ``predictions`` per image (evaluations of the base
        model's network, both branches of a guided one counted; None where they were not), ``peak_bytes`` of the whole
        batch.
    """
    groups = defaultdict(list)
    for batch in measured:
        groups[batch["setting"], batch["method"], batch["device"]].append(batch)
    rows = []
    for (setting, method, device), batches in groups.items():
        largest = max(batch["images"] for batch in batches)
        full = [batch for batch in batches if batch["images"] == largest]
        full = [batch for batch in full if not batch["warm_up"]] or full
        row = {"setting": setting, "method": method, "device": device, "batch": largest, "batches": len(full)}
        row["seconds"] = statistics.median(sum(batch.get(stage, 0) for stage in STAGES) / largest for batch in full)
        row |= {stage: statistics.median(batch.get(stage, 0) / largest for batch in full) for stage in STAGES}
        rows_of = [batch["rows"] / largest for batch in full if "rows" in batch]
        row["predictions"] = statistics.median(rows_of) if rows_of else None
        peaks = [batch["peak_bytes"] for batch in full if batch["peak_bytes"] is not None]
        row["peak_bytes"] = max(peaks, default=None)
        rows.append(row)
    return rows
