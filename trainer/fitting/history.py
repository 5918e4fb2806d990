"""What happened in a fit: rows of metrics in a JSONL file, and in TensorBoard or Weights & Biases if asked."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

from npnet_core.atomic_write import atomic_write
from npnet_core.errors import InputError
from trainer.data.jsonl import append_jsonl, read_jsonl, to_jsonl


class History:
    """Appends rows to ``OUT/log.jsonl``; those after ``step`` are dropped first, because they are about to come again.

    Raises:
        InputError: if TensorBoard or wandb is asked for and not installed.
    """

    def __init__(self, out: Path, step: int, *, tensorboard: bool = False, wandb: str | None = None):
        self.path = out / "log.jsonl"
        kept = [row for row in read_history(self.path) if row["step"] <= step]
        with atomic_write(self.path) as partial:
            partial.write_text(to_jsonl(kept), encoding="utf-8", newline="\n")
        self._tensorboard = _tensorboard(out / "tensorboard", step) if tensorboard else None
        self._wandb = _wandb(out, wandb) if wandb else None

    def add(self, row: dict[str, float | int | None]) -> None:
        """Append metrics by name; ``step`` is among them. What is not finite becomes null."""
        row = {name: value if value is None or math.isfinite(value) else None for name, value in row.items()}
        append_jsonl(self.path, [row])
        metrics = {name: value for name, value in row.items() if value is not None and name != "step"}
        if self._tensorboard is not None:
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, row["step"])
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(metrics, step=row["step"])

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_history(path: Path) -> list[dict]:
    """The rows of a log; a last line that a kill cut short is left out."""
    return read_jsonl(path) if path.exists() else []


def _tensorboard(folder: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard came and TensorBoard is not installed: pip install tensorboard.") from error
    return SummaryWriter(folder, purge_step=step + 1)


def _wandb(out: Path, project: str):
    try:
        import wandb
    except ImportError as error:
        raise InputError("--wandb came and wandb is not installed: pip install wandb.") from error
    run = f"{out.name}-{zlib.crc32(str(out.resolve()).encode()):08x}"  # the same when the run goes on
    return wandb.init(project=project, dir=out, id=run, resume="allow")
