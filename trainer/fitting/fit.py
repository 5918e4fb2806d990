"""``npnet fit``: a noise prompt dataset → an NPNet (Stage II of the paper, Algorithm 2)."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from npnet_core.checkpoint import save_npnet
from npnet_core.errors import InputError
from npnet_core.hidden import hidden
from npnet_core.npd import NPDReader
from trainer.commands.options import option, parse, required, save_config
from trainer.data.batches import Batches
from trainer.data.embeddings import Embeddings, encode_missing
from trainer.data.pairs import hold_out, limit_pairs, select, selecting
from trainer.distributed import Process, joined
from trainer.fitting.build_net import FURTHER, SHAPE, SHAPES, architecture, starting_net
from trainer.fitting.checkpoints import checkpoints
from trainer.fitting.history import History, read_history
from trainer.fitting.learning_curve import learning_curve
from trainer.fitting.training import Fit, resume, train, validate

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

    scorer: tuple[str, ...] | None = option(
        None, "keep pairs whose target every one of them prefers (default: the dataset's own); none: keep all"
    )
    margin: tuple[float, ...] = option((0.0,), "by how much, in the scorer's units; one, or one for each scorer")
    limit: int | None = option(None, "train on at most so many pairs")
    validation: float = option(0.05, "share of the prompts that is held out")
    skip_corrupt: bool = option(False, "leave damaged parts of the dataset out")

    init: Path | None = option(None, "an NPNet file to start from")
    arch: Literal["npnet", "unet"] | None = option(
        None, "npnet: the published architecture (default); unet: a U-Net that reads every token, at any size"
    )
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
    widths: tuple[int, ...] | None = option(None, "of a U-Net: features per level (default: 64 128 256 256)")
    blocks: int | None = option(None, "of a U-Net: blocks per level, each way (default: 1)")

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
        if figures["validation_explained"] <= 0:
            log.info("That is no better than leaving the noise alone: it needs more pairs or more steps.")


def prepare(options: Options, process: Process) -> Fit:
    """Read and check everything that the options name, before anything is written but prompt embeddings."""
    check_options(options)
    reader = NPDReader(options.dataset, skip_corrupt=options.skip_corrupt)
    options = dataclasses.replace(options, scorer=selecting(reader, options.scorer))
    check_folder(options)
    if process.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
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
    if options.init is not None:
        if flags := given(options, ["arch", *SHAPE, "without", "published_quirks", "swin_weights"]):
            raise InputError(
                f"{flags} came with --init, whose file says what the net looks like: leave one of them out."
            )
        return
    arch = architecture(options)
    if flags := given(options, [name for other in SHAPES if other != arch for name in SHAPES[other] + FURTHER[other]]):
        raise InputError(f"{flags} came, which a net of the architecture {arch} does not have: leave it out.")


def given(options: Options, names: Iterable[str]) -> str:
    """The flags of those options that are not as they are by default, separated by commas."""
    named = [name for name in names if getattr(options, name) != getattr(Options, name)]
    return ", ".join("--" + name.replace("_", "-") for name in named)


def check_folder(options: Options) -> None:
    """Raise InputError if OUT holds something else than a run with these options."""
    config = options.out / "fit.toml"
    if not config.exists():
        if options.out.exists() and (
            not options.out.is_dir() or any(not hidden(path.name) for path in options.out.iterdir())
        ):
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
