"""What is said when a loss, a gradient or a weight is no longer finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.fitting.checkpoints import checkpoints
from trainer.fitting.metrics import Losses
from trainer.fitting.run import Run


def diverged(run: Run, step: int, losses: Sequence[Losses]) -> str:
    """A sentence; names samples if it is not all of them."""
    bad, count = [], 0
    for each in losses:
        bad += [i for i, value in zip(each.samples, each.loss.tolist(), strict=True) if not math.isfinite(value)]
        count += len(each.samples)
    bad, count = run.process.gather(bad), count * run.process.count
    saved = checkpoints(run.settings.out / "checkpoints")
    left = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
    unit = run.objective.unit
    if bad and len(bad) < count:
        return f"Step {step} has NaN or infinity for {len(bad)} of {count} {unit}s {run.objective.broken(bad)}; {left}."
    return (
        f"Step {step} has NaN or infinity for {f'every {unit}' if bad else 'gradients or weights'}: lower --lr or give "
        f"--clip and --warmup; {left}."
    )
