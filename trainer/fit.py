"""``npnet fit``: a noise prompt dataset → an NPNet (Stage II of the paper, Algorithm 2)."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from npnet_core.checkpoint import save_npnet
from npnet_core.diagnostics import prompt_dependence
from npnet_core.errors import InputError
from npnet_core.model import NPNet
from npnet_core.npd import NPDReader

from .batches import Batch, Batches, ahead
from .checkpoints import checkpoints, load_checkpoint, save_checkpoint
from .curve import learning_curve
from .embeddings import Embeddings, encode_missing
from .figures import Meter, Seen, errors, totals
from .history import History, read_history
from .initial import SHAPE, starting_net
from .options import option, parse, required, save_config
from .pairs import hold_out, limit_pairs, samples, select
from .processes import Process, joined
from .signals import stop_signals

log = logging.getLogger(__name__)

# Settings that may change when a run goes on, because no weight depends on them. The dataset is compared by its hash.
FREE = ("dataset", "out", "skip_corrupt", "device", "workers", "checkpoint_every", "keep", "log_every")
FREE += ("tensorboard", "wandb")

# Settings that stand in other entries of the result's metadata, or are not worth keeping.
ELSEWHERE = (*SHAPE, "drop_path", "base", "base_config", "init", "swin_weights", "scorer", "margin")


@dataclass(frozen=True)
class Options:
    """Train an NPNet on a noise prompt dataset, or train one further.

    npnet fit --dataset datasets/sdxl --out runs/sdxl
    npnet fit --dataset datasets/hunyuan --out runs/hunyuan --init models/npnet/sdxl.safetensors
    torchrun --nproc-per-node 4 -m trainer fit --config fit.toml

    Stopped at any moment and started again with the same command it goes on where it was, to the bit. The net is
    OUT/npnet.safetensors. The defaults are the paper's.
    """

    dataset: Path = required("the dataset's folder")
    out: Path = required("the run's folder: the net, its log, its checkpoints")
    base: str | None = option(None, "base model whose text encoder reads the prompts (default: the dataset's own)")
    base_config: str | None = option(None, "for a single-file base model: a diffusers folder or hub id of its kind")

    scorer: tuple[str, ...] = option(("hpsv2",), "keep pairs whose target every one of them prefers; none: keep all")
    margin: tuple[float, ...] = option((0.0,), "by how much, in the scorer's units; one, or one for each scorer")
    limit: int | None = option(None, "train on at most so many pairs")
    validation: float = option(0.05, "share of the prompts that is held out")
    skip_corrupt: bool = option(False, "leave damaged parts of the dataset out")

    init: Path | None = option(None, "an NPNet file to start from")
    swin_weights: Path | None = option(None, "an ImageNet Swin (timm's names) to start from")
    published_quirks: bool = option(
        False, "compute what the published nets compute: features misread, signs as they come"
    )
    without: tuple[Literal["svd", "text", "residual"], ...] = option((), "leave terms of eq. 9 out")
    resolution: int | None = option(None, "side of the net's view in latent pixels (default: the dataset's)")
    swin_size: int | None = option(None, "side of the Swin's picture (default: 224)")
    swin_dim: int | None = option(None, "width of the Swin's first stage (default: 96)")
    swin_depths: tuple[int, ...] | None = option(None, "blocks per stage (default: 2 2 6 2)")
    swin_heads: tuple[int, ...] | None = option(None, "heads per stage (default: 3 6 12 24)")
    swin_window: int | None = option(None, "side of the Swin's windows (default: 7)")
    drop_path: float | None = option(None, "stochastic depth of the Swin (default: 0.1)")

    epochs: int = option(30, "times that every pair is seen")
    batch: int = option(64, "pairs at once, per process")
    accumulate: int = option(1, "batches per step of the optimizer")
    lr: float = option(1e-4, "learning rate of AdamW")
    weight_decay: float = option(0.01, "of AdamW")
    warmup: int = option(0, "steps until the learning rate is reached")
    schedule: Literal["constant", "cosine"] = option("constant", "of the learning rate; cosine falls to 0")
    clip: float | None = option(None, "largest norm of the gradient (default: not clipped)")
    ema: float = option(0.0, "decay of a moving average of the weights, which then is the result, such as 0.999")
    precision: Literal["fp32", "bf16"] = option("fp32", "of the network; singular values stay in fp32")
    compile: bool = option(False, "torch.compile the network")
    seed: int = option(0, "of new weights, held-out prompts, order and stochastic depth")

    device: str | None = option(None, "cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    workers: int | None = option(None, "threads that prepare batches (default: 1 on the CPU, up to 16 for a GPU)")
    checkpoint_every: float = option(10.0, "minutes between checkpoints; 0: after every step")
    keep: int = option(3, "checkpoints that are kept")
    log_every: int = option(10, "steps between two rows of the log")
    tensorboard: bool = option(False, "log to OUT/tensorboard too")
    wandb: str | None = option(None, "log to this Weights & Biases project too")


def run(options: Options) -> None:
    with joined(options.device) as process:
        fit_npnet(options, process)


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
    npnet: NPNet
    average: NPNet | None
    optimizer: torch.optim.Optimizer

    @property
    def result(self) -> NPNet:
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


def fit_npnet(options: Options, process: Process) -> None:
    """From the dataset to OUT/npnet.safetensors. Seeds torch's global generator at every step.

    Raises:
        InputError: for options, a dataset or files that do not fit.
        FloatingPointError: when gradients or weights are no longer finite; names the pairs.
        KeyboardInterrupt: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    path = options.out / "npnet.safetensors"
    fit = prepare(options, process)
    start = resume(fit)
    if start == fit.steps and path.exists():
        log.info("%s is finished.", path)
        return
    history = open_history(fit, start)
    train(fit, start, history)
    figures = validate(fit)
    if history is None:
        return
    history.add({"step": fit.steps, "epoch": fit.epoch(fit.steps)} | figures)
    history.close()
    (options.out / "curve.svg").write_text(learning_curve(read_history(history.path)), encoding="utf-8")
    save_npnet(fit.result, path, metadata(fit, figures))
    log.info("%s: %d steps over %d pairs.", path, fit.steps, len(fit.training))
    if figures:
        log.info("It explains %.2f %% of the change for prompts it never saw.", 100 * figures["validation_explained"])


# -- before the first step --------------------------------------------------------------------------------------------


def prepare(options: Options, process: Process) -> Fit:
    """Read and check everything that the options name, before anything is written but prompt embeddings."""
    check_options(options)
    check_folder(options)
    if process.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    reader = NPDReader(options.dataset, skip_corrupt=options.skip_corrupt)
    chosen = select(reader, options.scorer, options.margin)
    training, validation = hold_out(reader, chosen, options.validation, options.seed)
    training = limit_pairs(reader, training, options.limit, options.seed)
    embeddings = embed(options, process, reader, training + validation)
    npnet = starting_net(options, reader, training + validation, embeddings.shape).to(process.device)
    return Fit(
        options=options,
        process=process,
        reader=reader,
        chosen=chosen,
        training=training,
        validation=validation,
        load=Batches(reader, embeddings, npnet.config, process.device),
        npnet=npnet,
        average=copy.deepcopy(npnet).eval() if options.ema else None,
        optimizer=torch.optim.AdamW(npnet.parameters(), lr=options.lr, weight_decay=options.weight_decay),
    )


def check_options(options: Options) -> None:
    """Raise InputError for numbers that make no run."""
    least = {"epochs": 1, "batch": 1, "accumulate": 1, "keep": 1, "log_every": 1}
    least |= {"lr": 0, "weight_decay": 0, "warmup": 0, "checkpoint_every": 0}
    for name, value in least.items():
        if not getattr(options, name) >= value:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)} came: give at least {value}.")
    if options.lr > 1:
        raise InputError(f"--lr {options.lr} came: give at most 1, such as 1e-4.")
    if not 0 <= options.ema < 1:
        raise InputError(f"--ema {options.ema} came: give 0 (none) to less than 1, such as 0.999.")
    if options.clip is not None and not options.clip > 0:
        raise InputError(f"--clip {options.clip} came: give a norm above 0, or leave it out.")
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers {options.workers} came: give at least 1 thread.")
    shaping = [name for name in SHAPE if getattr(options, name) is not None]
    shaping += [name for name in ("without", "published_quirks", "swin_weights") if getattr(options, name)]
    if options.init is not None and shaping:
        flags = ", ".join("--" + name.replace("_", "-") for name in shaping)
        raise InputError(f"{flags} came with --init, whose file says what the net looks like: leave one of them out.")


def check_folder(options: Options) -> None:
    """Raise InputError if OUT holds something else than a run with these options."""
    config = options.out / "fit.toml"
    if not config.exists():
        if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
            raise InputError(f"{options.out} holds other files and no run: choose a new or empty folder as --out.")
        return
    if not checkpoints(options.out / "checkpoints"):
        return
    started = parse(Options, "fit", ["--config", str(config)])
    differing = [
        f"{field.name} {getattr(started, field.name)} there and {getattr(options, field.name)} here"
        for field in dataclasses.fields(Options)
        if field.name not in FREE and getattr(started, field.name) != getattr(options, field.name)
    ]
    if differing:
        raise InputError(
            f"{options.out} holds another run ({'; '.join(differing)}): choose another --out, or go on as it was."
        )


def embed(options: Options, process: Process, reader: NPDReader, indices: Sequence[int]) -> Embeddings:
    """The prompt embeddings of these pairs, encoded now if they are not there yet."""
    base = options.base or reader.manifest.recorded.get("base_model")
    if not base:
        raise InputError(
            f"The dataset {options.dataset} does not say which base model it was made with: name it with --base."
        )
    encode_missing(
        options.dataset,
        base,
        [reader.records[i].key.prompt for i in indices],
        family=reader.manifest.base_family,
        device=process.device,
        base_config=options.base_config,
        share=(process.rank, process.count),
    )
    process.wait()
    return Embeddings(options.dataset, base)


def open_history(fit: Fit, start: int) -> History | None:
    """The log of the first process; from here on OUT holds this run."""
    options = fit.options
    log.info("%d pairs to train on, %d held out, %d steps.", len(fit.training), len(fit.validation), fit.steps)
    if fit.process.rank > 0:
        return None
    options.out.mkdir(parents=True, exist_ok=True)
    save_config(options, options.out / "fit.toml")
    return History(options.out, start, tensorboard=options.tensorboard, wandb=options.wandb)


# -- training ---------------------------------------------------------------------------------------------------------


def train(fit: Fit, start: int, history: History | None) -> None:
    """Steps ``start`` to the last, logging, validating and saving on the way."""
    options, process = fit.options, fit.process
    model = wrapped(fit)
    meter, saved = Meter(), time.monotonic()
    fit.npnet.train()
    bar = tqdm(total=fit.steps, initial=start, unit="step", smoothing=0.1, disable=process.rank > 0)
    prepared = closing(ahead(fit.load, planned(fit, start), workers(fit)))
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
                progress.set_postfix_str(f"explains {row['train_explained']:.1%}")
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
            if stop and done < fit.steps:
                raise KeyboardInterrupt


def backward(fit: Fit, model: nn.Module, batches: Iterator[Batch]) -> tuple[list[Seen], Tensor]:
    """Gradients of one step's batches; what was seen, and the gradient's norm before it was clipped."""
    options, device = fit.options, fit.process.device
    fit.optimizer.zero_grad()
    seen = []
    for i in range(options.accumulate):
        batch = next(batches)
        with reduction(model, last=i == options.accumulate - 1):
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                golden = model(batch.noise, batch.prompt, batch.svd)
            error = squared_error(golden, batch.target)
            (error.mean() / options.accumulate).backward()
        seen.append(Seen(batch.indices, error.detach(), squared_error(batch.noise, batch.target)))
    return seen, nn.utils.clip_grad_norm_(fit.npnet.parameters(), options.clip or math.inf)


def squared_error(golden: Tensor, target: Tensor) -> Tensor:
    """[B, C, R, R] twice → the loss of each pair, [B]."""
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
def update_average(average: NPNet, npnet: NPNet, decay: float, step: int) -> None:
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


def workers(fit: Fit) -> int:
    """Threads that prepare batches, enough for the SVDs."""
    if fit.options.workers is not None:
        return fit.options.workers
    return 1 if fit.process.device.type == "cpu" else min(16, max(1, (os.cpu_count() or 1) // fit.process.count))


# -- figures ----------------------------------------------------------------------------------------------------------


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
            squared_error(npnet(batch.noise, batch.prompt, batch.svd), batch.target),
            squared_error(batch.noise, batch.target),
        )
        for batch in ahead(fit.load, chunks, workers(fit))
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


def term_weights(npnet: NPNet) -> dict[str, float]:
    """α and β of eq. 9, as far as the net has them."""
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
        return f"Step {step} has NaN or infinity for {len(bad)} of {count} pairs ({named}): remove them; {left}."
    return (
        f"Step {step} has NaN or infinity for {'every pair' if bad else 'gradients or weights'}: lower --lr or give "
        f"--clip and --warmup; {left}."
    )


def metadata(fit: Fit, figures: dict[str, float]) -> dict[str, str]:
    """What the result says of itself, beside its config."""
    options, reader = fit.options, fit.reader
    settings = dataclasses.asdict(reader.manifest)
    recorded = settings.pop("recorded")
    trained = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(Options)
        if field.name not in (*FREE, *ELSEWHERE)
    }
    initial = {name: str(getattr(options, name).name) for name in ("init", "swin_weights") if getattr(options, name)}
    return {
        "npnet.base_model": options.base or recorded["base_model"],
        "npnet.provenance": "trained by npnet fit",
        "npnet.dataset": json.dumps({"sha256": reader.hash, "pairs": len(reader), **settings}),
        "npnet.selection": json.dumps(
            {
                "scorers": options.scorer,
                "margins": options.margin,
                "kept": len(fit.chosen),
                "trained_on": len(fit.training),
            }
        ),
        "npnet.training": json.dumps(trained | initial | {"steps": fit.steps, "pairs_per_step": fit.pairs_per_step}),
        "npnet.validation": json.dumps({name: value for name, value in figures.items() if math.isfinite(value)}),
    }
