"""The training loop of ``npnet fit``, and what it needs: one step, validation, checkpoints."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from npnet_core.architectures import GoldenNet
from npnet_core.diagnostics import prompt_dependence
from npnet_core.errors import InputError
from npnet_core.model import NPNet
from npnet_core.npd import NPDReader
from trainer.data.batches import Batch, Batches, ahead
from trainer.data.pairs import samples
from trainer.distributed import Process
from trainer.fitting.checkpoints import checkpoints, load_checkpoint, save_checkpoint
from trainer.fitting.history import History
from trainer.fitting.metrics import Meter, Seen, errors, totals
from trainer.signals import stop_signals

if TYPE_CHECKING:
    from trainer.fitting.fit import Options

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """Everything that one run works with; only the weights, their average and the optimizer's state ever change."""

    options: Options
    process: Process
    reader: NPDReader
    chosen: list[int]  # pairs that the selection keeps; of these …
    training: list[int]
    validation: list[int]
    load: Batches
    npnet: GoldenNet
    average: GoldenNet | None
    optimizer: torch.optim.Optimizer

    @property
    def result(self) -> GoldenNet:
        """The net that is validated and written."""
        return self.npnet if self.average is None else self.average

    @property
    def pairs_per_step(self) -> int:
        return self.options.batch * self.options.accumulate * self.process.count

    @property
    def steps(self) -> int:
        return math.ceil(self.options.epochs * len(self.training) / self.pairs_per_step)

    def epoch(self, step: int) -> float:
        """How often every pair was seen after so many steps."""
        return step * self.pairs_per_step / len(self.training)


# -- one step after another -------------------------------------------------------------------------------------------


def train(fit: Fit, start: int, history: History | None) -> None:
    """Steps ``start`` to the last, logging, validating and saving on the way."""
    options, process = fit.options, fit.process
    model = wrapped(fit)
    meter, saved = Meter(), time.monotonic()
    fit.npnet.train()
    bar = tqdm(total=fit.steps, initial=start, unit="step", smoothing=0.1, disable=process.rank > 0)
    prepared = closing(ahead(fit.load.by_size, planned(fit, start), preparing_threads(fit)))
    with stop_signals() as stopped, prepared as batches, bar as progress:
        for step in range(start, fit.steps):
            # all randomness of a step (stochastic depth) follows from its number
            torch.manual_seed(options.seed + 1_000_003 * (1 + process.rank + process.count * step))
            lr = options.lr * lr_factor(step, fit.steps, options.warmup, options.schedule)
            for group in fit.optimizer.param_groups:
                group["lr"] = lr
            seen, norm = backward(fit, model, batches)
            if not norm.isfinite():
                raise FloatingPointError(diverged(fit, step + 1, seen))
            fit.optimizer.step()
            if fit.average is not None:
                update_average(fit.average, fit.npnet, options.ema, step)
            meter.add(seen)

            done, row = step + 1, {}
            progress.update()
            if done % options.log_every == 0 or done == fit.steps:
                row |= meter.row(process) | {"lr": lr, "grad_norm": norm.item()} | term_weights(fit.npnet)
                progress.set_postfix_str(f"training: explains {row['train_explained']:.1%}")
            with meter.paused():
                if int(fit.epoch(done)) > int(fit.epoch(step)) and done < fit.steps:
                    row |= validate(fit)
                    fit.npnet.train()
                if history is not None and row:
                    history.add({"step": done, "epoch": fit.epoch(done)} | row)
                stop, due = process.any(stopped(), time.monotonic() - saved >= 60 * options.checkpoint_every)
                if stop or due or done == fit.steps:
                    save(fit, done)
                    saved = time.monotonic()
            if stop:  # after the last step too: what follows a fit must not go on
                raise KeyboardInterrupt


def backward(fit: Fit, model: nn.Module, batches: Iterator[list[Batch]]) -> tuple[list[Seen], Tensor]:
    """Gradients of one step's batches; what was seen, and the gradient's norm before it was clipped."""
    options, device = fit.options, fit.process.device
    fit.optimizer.zero_grad()
    seen = []
    for i in range(options.accumulate):
        sizes = next(batches)
        for batch in sizes:
            with reduction(model, last=i == options.accumulate - 1 and batch is sizes[-1]):
                with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                    golden = model(*batch.inputs)
                error = squared_error(golden, batch.target)
                (error.sum() / (options.batch * options.accumulate)).backward()
            seen.append(Seen(batch.indices, error.detach(), squared_error(batch.noise, batch.target)))
    return seen, nn.utils.clip_grad_norm_(fit.npnet.parameters(), options.clip or math.inf)


def squared_error(golden: Tensor, target: Tensor) -> Tensor:
    """[B, C, H, W] twice → the loss of each pair, [B]."""
    return (golden.float() - target).square().mean((1, 2, 3))


def planned(fit: Fit, start: int) -> Iterator[list[int]]:
    """The pairs of every batch of this process from step ``start`` on. Each step takes the next ``pairs_per_step`` of
    the run, so that what is in a step does not depend on how many processes and batches share it."""
    options, process = fit.options, fit.process
    for first in range(start * fit.pairs_per_step, fit.steps * fit.pairs_per_step, fit.pairs_per_step):
        for i in range(options.accumulate):
            mine = first + (i * process.count + process.rank) * options.batch
            order = samples(mine, mine + options.batch, len(fit.training), options.seed)
            yield [fit.training[k] for k in order]


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


def wrapped(fit: Fit) -> nn.Module:
    """The net as it is called in training."""
    model = torch.compile(fit.npnet) if fit.options.compile else fit.npnet
    return DistributedDataParallel(model) if fit.process.count > 1 else model


def reduction(model: nn.Module, last: bool):
    """Gradients are averaged over processes after the last batch of a step only."""
    return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()


def preparing_threads(fit: Fit) -> int:
    """Threads that prepare batches, enough for the SVDs."""
    if fit.options.workers is not None:
        return fit.options.workers
    return 1 if fit.process.device.type == "cpu" else min(16, max(1, (os.cpu_count() or 1) // fit.process.count))


# -- validating ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def validate(fit: Fit) -> dict[str, float]:
    """Figures over the held-out prompts, in fp32 and eval mode, as the net is used; none without such prompts."""
    if not fit.validation:
        return {}
    npnet, process, size = fit.result.eval(), fit.process, fit.options.batch
    mine = fit.validation[process.rank :: process.count]
    chunks = [mine[i : i + size] for i in range(0, len(mine), size)]
    seen = [
        Seen(
            batch.indices,
            squared_error(npnet(*batch.inputs), batch.target),
            squared_error(batch.noise, batch.target),
        )
        for sizes in ahead(fit.load.by_size, chunks, preparing_threads(fit))
        for batch in sizes
    ]
    figures = errors("validation", process.sum(totals(seen)))
    if process.rank == 0:
        figures["prompt_dependence"] = validation_prompt_dependence(fit)
    return figures


def validation_prompt_dependence(fit: Fit, count: int = 8) -> float:
    """:func:`npnet_core.diagnostics.prompt_dependence` over noises of different held-out prompts, each prompt against
    the next; NaN where there is only one."""
    reader, embeddings = fit.reader, fit.load.embeddings
    by_prompt = {reader.records[i].key.prompt: i for i in reversed(fit.validation)}
    first = reader.records[next(iter(by_prompt.values()))].key.shape
    indices = [i for i in by_prompt.values() if reader.records[i].key.shape == first][:count]
    if len(indices) < 2:
        return math.nan
    noise = reader.batch(indices)[0].float()
    prompt = embeddings.batch([reader.records[i].key.prompt for i in indices])
    return prompt_dependence(fit.result, noise, prompt, prompt.roll(1, 0))


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


# -- saving and going on ----------------------------------------------------------------------------------------------


def save(fit: Fit, step: int) -> None:
    """Write a checkpoint after ``step`` steps, from the first process."""
    if not all(parameter.isfinite().all() for parameter in fit.npnet.parameters()):
        raise FloatingPointError(diverged(fit, step, []))  # on every process, they have the same weights
    if fit.process.rank == 0:
        state = {name: part.state_dict() for name, part in stateful(fit).items()}
        state |= identity(fit) | {"step": step}
        save_checkpoint(fit.options.out / "checkpoints", step, state, fit.options.keep)


def resume(fit: Fit) -> int:
    """Load the latest checkpoint, if there is one. Returns how many steps are done.

    Raises:
        InputError: if it is damaged, of another dataset, or of another number of pairs per step.
    """
    saved = checkpoints(fit.options.out / "checkpoints")
    if not saved:
        return 0
    state = load_checkpoint(saved[-1])
    for name, value in identity(fit).items():
        if state[name] != value:
            raise InputError(
                f"{fit.options.out} holds a run with another {name.replace('_', ' ')} ({state[name]} there, {value} "
                "here): choose another --out, or go on with the same dataset, --batch and number of processes."
            )
    for name, part in stateful(fit).items():
        part.load_state_dict(state[name])
    log.info("Going on after step %d of %d.", state["step"], fit.steps)
    return state["step"]


def stateful(fit: Fit) -> dict:
    parts = {"npnet": fit.npnet, "average": fit.average, "optimizer": fit.optimizer}
    return {name: part for name, part in parts.items() if part is not None}


def identity(fit: Fit) -> dict[str, str | int]:
    """What must be the same when a run goes on, besides its options."""
    return {"dataset": fit.reader.hash, "pairs_per_step": fit.pairs_per_step}


def diverged(fit: Fit, step: int, seen: Sequence[Seen]) -> str:
    """The sentence for a loss, gradient or weight that is not finite; names pairs if it is not all of them."""
    bad, count = [], 0
    for indices, error, _ in seen:
        bad += [i for i, value in zip(indices, error.tolist(), strict=True) if not math.isfinite(value)]
        count += len(indices)
    bad, count = fit.process.gather(bad), count * fit.process.count
    records = [fit.reader.records[i] for i in bad[:3]]
    named = "; ".join(f"prompt {r.key.prompt!r}, seed {r.key.seed}, part {r.part.stem}" for r in records)
    saved = checkpoints(fit.options.out / "checkpoints")
    left = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
    if bad and len(bad) < count:
        return (
            f"Step {step} has NaN or infinity for {len(bad)} of {count} pairs ({named}): delete these "
            f"parts and the dataset's embeddings, then collect and encode them again; {left}."
        )
    return (
        f"Step {step} has NaN or infinity for {'every pair' if bad else 'gradients or weights'}: lower --lr or give "
        f"--clip and --warmup; {left}."
    )
