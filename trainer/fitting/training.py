"""The training loop: one step after another, whatever the objective."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from npnet_core.adapter import Adapter
from npnet_core.architectures import GoldenNet
from npnet_core.model import NPNet
from trainer.data.prefetch import prefetch
from trainer.fitting.divergence import diverged
from trainer.fitting.epoch_order import samples
from trainer.fitting.history import History, read_history
from trainer.fitting.metrics import Losses, Meter
from trainer.fitting.resume import save
from trainer.fitting.run import Run
from trainer.signals import stop_signals

log = logging.getLogger(__name__)


def train(run: Run, start: int, history: History | None) -> int:
    """Steps ``start`` to the last, logging, validating and saving on the way. Returns how many are done: fewer where
    the objective ends the run."""
    training, runtime = run.settings.training, run.settings.runtime
    objective, process = run.objective, run.process
    model = wrapped(run)
    meter, saved = Meter(objective.metrics), time.monotonic()
    run.npnet.train()
    bar = tqdm(total=run.steps, initial=start, unit="step", smoothing=0.1, disable=process.rank > 0)
    prepared = closing(prefetch(objective.prepare, planned(run, start), preparing_threads(run)))
    with stop_signals() as stopped, prepared as batches, bar as progress:
        for step in range(start, run.steps):
            # all randomness of a step (stochastic depth) follows from its number
            torch.manual_seed(training.seed + 1_000_003 * (1 + process.rank + process.count * step))
            lr = training.lr * lr_factor(step, run.steps, training.warmup, training.schedule)
            for group in run.optimizer.param_groups:
                group["lr"] = lr
            losses, norm = backward(run, model, batches)
            if not norm.isfinite():
                raise FloatingPointError(diverged(run, step + 1, losses))
            run.optimizer.step()
            if run.average is not None:
                update_average(run.average, run.npnet, training.ema, step)
            meter.add(losses)

            done, row = step + 1, {}
            progress.update()
            if done % runtime.log_every == 0 or done == run.steps:
                row |= meter.row(process) | {"lr": lr, "grad_norm": norm.item()} | term_weights(run.npnet)
                progress.set_postfix_str(objective.progress(row))
            with meter.paused():
                looked, ended = validation_due(run, step), None
                if looked:
                    row |= validate(run)
                    run.npnet.train()
                if history is not None and row:
                    history.add({"step": done, "epoch": run.epoch(done)} | row)
                    if looked:
                        ended = show(run, done, history)
                stop, due, end = process.any(
                    stopped(), time.monotonic() - saved >= 60 * runtime.checkpoint_every, ended is not None
                )
                if stop or due or end or done == run.steps:
                    save(run, done)
                    saved = time.monotonic()
            if stop:  # after the last step too: what follows a fit must not go on
                raise KeyboardInterrupt
            if end:
                if ended is not None:
                    log.warning("The run ends after step %d of %d: %s.", done, run.steps, ended)
                return done
    return run.steps


def validation_due(run: Run, step: int) -> bool:
    """Whether what is held out is looked at after the step; after the last one :func:`trainer.fitting.fit.fit` does."""
    every, done = run.settings.runtime.validate_every, step + 1
    if done == run.steps:
        return False
    return int(run.epoch(done)) > int(run.epoch(step)) if every is None else done % every == 0


def show(run: Run, step: int, history: History) -> str | None:
    """What people look at, anew; returns why the run had better end, see :class:`Objective`."""
    rows = read_history(history.path)
    run.objective.show(run.result, step, rows)
    run.npnet.train()
    return run.objective.stop(rows)


def backward(run: Run, model: nn.Module, batches: Iterator[list]) -> tuple[list[Losses], Tensor]:
    """Gradients of one step's batches; the losses, and the gradient's norm before it was clipped."""
    training, device = run.settings.training, run.process.device
    run.optimizer.zero_grad()
    seen = []
    for i in range(training.accumulate):
        sizes = next(batches)
        for batch in sizes:
            with reduction(model, last=i == training.accumulate - 1 and batch is sizes[-1]):
                with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
                    losses = run.objective.losses(model, batch)
                (losses.loss.sum() / (training.batch * training.accumulate)).backward()
            seen.append(losses.detached())
    return seen, nn.utils.clip_grad_norm_(run.npnet.parameters(), training.clip or math.inf)


def planned(run: Run, start: int) -> Iterator[list[int]]:
    """The samples of every batch of this process from step ``start`` on. Each step takes the next ``samples_per_step``
    of the run, so that what is in a step does not depend on how many processes and batches share it."""
    training, process = run.settings.training, run.process
    for first in range(start * run.samples_per_step, run.steps * run.samples_per_step, run.samples_per_step):
        for i in range(training.accumulate):
            mine = first + (i * process.count + process.rank) * training.batch
            order = samples(mine, mine + training.batch, len(run.objective.training), training.seed)
            yield [run.objective.training[k] for k in order]


def lr_factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Share of the learning rate at a step: rises linearly over ``warmup`` steps, then stays, or falls as a half
    cosine that would be 0 at ``steps``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def update_average(average: GoldenNet, npnet: GoldenNet, decay: float, step: int) -> None:
    """average ← d·average + (1 − d)·npnet with d = min(decay, (1 + step) / (10 + step)), which forgets the start."""
    d = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(npnet.parameters()), 1 - d)


def wrapped(run: Run) -> nn.Module:
    """The net as it is called in training."""
    model = torch.compile(run.npnet) if run.settings.training.compile else run.npnet
    if run.process.count == 1:
        return model
    # of an adapter's layers not every one need take part in every prediction
    return DistributedDataParallel(model, find_unused_parameters=isinstance(run.npnet, Adapter))


def reduction(model: nn.Module, last: bool):
    """Gradients are averaged over processes after the last batch of a step only."""
    return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()


def preparing_threads(run: Run) -> int:
    """Threads that prepare batches, enough for the SVDs."""
    if run.settings.runtime.workers is not None:
        return run.settings.runtime.workers
    return 1 if run.process.device.type == "cpu" else min(16, max(1, (os.cpu_count() or 1) // run.process.count))


def validate(run: Run) -> dict[str, float]:
    """Metrics over what is held out, of the net as it is used."""
    return run.objective.validate(run.result, run.process, run.settings.training.batch, preparing_threads(run))


def term_weights(npnet: GoldenNet) -> dict[str, float]:
    """α and β of eq. 9, as far as the net has them; none for another architecture."""
    if not isinstance(npnet, NPNet):
        return {}
    weights = {}
    if npnet.text_term is not None:
        weights["alpha"] = npnet.text_weight().item()
    if npnet.residual_branch is not None:
        weights["beta"] = npnet.beta.item()
    return weights
