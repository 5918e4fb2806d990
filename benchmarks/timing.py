"""What calls cost: seconds, of two in turn so that a drifting machine changes both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(function: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_seconds(function: Callable[[], object], runs: int) -> float:
    """Median over ``runs`` after one warm-up."""
    function()
    return statistics.median(seconds(function) for _ in range(runs))


def paired(a: Callable[[], object], b: Callable[[], object], runs: int) -> tuple[float, float, float]:
    """(median seconds of a, median seconds of b, median of the ratios a/b of each pair), after one warm-up."""
    a(), b()
    pairs = [(seconds(a), seconds(b)) if i % 2 else (seconds(b), seconds(a))[::-1] for i in range(runs)]
    return (
        statistics.median(t for t, _ in pairs),
        statistics.median(t for _, t in pairs),
        statistics.median(t / u for t, u in pairs),
    )


def row(what: str, figure: str, bound: str = "") -> None:
    print(f"{what:58}{figure:>22}  {bound}", flush=True)
