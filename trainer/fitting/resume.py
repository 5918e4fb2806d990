"""Going on where a run was, to the bit: what its checkpoints hold."""

from __future__ import annotations

import logging

from npnet_core.errors import InputError
from trainer.fitting.checkpoints import checkpoints, load_checkpoint, save_checkpoint
from trainer.fitting.divergence import diverged
from trainer.fitting.run import Run

log = logging.getLogger(__name__)


def save(run: Run, step: int) -> None:
    """Write a checkpoint after ``step`` steps, from the first process."""
    if not all(parameter.isfinite().all() for parameter in run.npnet.parameters()):
        raise FloatingPointError(diverged(run, step, []))  # on every process, they have the same weights
    if run.process.rank == 0:
        state = {name: part.state_dict() for name, part in stateful(run).items()}
        state |= identity(run) | {"step": step}
        save_checkpoint(run.settings.out / "checkpoints", step, state, run.settings.runtime.keep)


def resume(run: Run) -> int:
    """Load the latest checkpoint, if there is one. Returns how many steps are done.

    Raises:
        InputError: if it is damaged, of another dataset, or of another number of samples per step.
    """
    saved = checkpoints(run.settings.out / "checkpoints")
    if not saved:
        return 0
    state = load_checkpoint(saved[-1])
    for name, value in identity(run).items():
        if state[name] != value:
            raise InputError(
                f"{run.settings.out} holds a run with another {name.replace('_', ' ')} ({state[name]} there, {value} "
                "here): choose another --out, or go on with the same dataset, --batch and number of processes."
            )
    for name, part in stateful(run).items():
        part.load_state_dict(state[name])
    log.info("Going on after step %d of %d.", state["step"], run.steps)
    return state["step"]


def stateful(run: Run) -> dict:
    parts = {"npnet": run.npnet, "average": run.average, "optimizer": run.optimizer}
    return {name: part for name, part in parts.items() if part is not None}


def identity(run: Run) -> dict[str, str | int]:
    """What must be the same when a run goes on, besides its settings."""
    return {"dataset": run.objective.hash, "pairs_per_step": run.samples_per_step}
