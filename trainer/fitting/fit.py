"""What a net learns from → an NPNet (Stage II of the paper, Algorithm 2)."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from npnet_core.checkpoint import save_npnet
from npnet_core.preference import Scorer
from trainer.distributed import Process, joined
from trainer.fitting.folder import save_settings
from trainer.fitting.history import History, read_history
from trainer.fitting.learning_curve import learning_curve
from trainer.fitting.noise_pairs import prepare_pairs
from trainer.fitting.resume import resume
from trainer.fitting.reward import prepare_reward
from trainer.fitting.run import Run
from trainer.fitting.settings import MAY_CHANGE, SHAPE, NoisePairs, Reward, Settings
from trainer.fitting.training import show, train, validate

log = logging.getLogger(__name__)

# Settings that stand in other entries of the result's metadata, or are not worth keeping.
NOT_IN_NPNET_TRAINING = (
    *SHAPE,
    "drop_path",
    "init",
    "swin_weights",
    "margin",
    "cache",
    *(field.name for field in dataclasses.fields(Reward) if field.name not in ("objective", "validation")),
)


def fit(settings: Settings, scorers: Mapping[str, Scorer] | None = None) -> Path:
    """From what the objective learns from to OUT/npnet.safetensors, whose path it returns; goes on where it was.

    Seeds torch's global generator at every step.

    Args:
        scorers: for the objective reward, preference models of your own, by the name that the settings have for them.

    Raises:
        InputError: for settings, a dataset or files that do not fit.
        FloatingPointError: when gradients or weights are no longer finite; names the samples.
        KeyboardInterrupt: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    path = settings.out / "npnet.safetensors"
    with joined(settings.runtime.device) as process:
        run = prepare(settings, process, scorers)
        start = resume(run)
        if start == run.steps and path.exists():
            log.info("%s is finished.", path)
            return path
        history = open_history(run, start)
        steps = train(run, start, history)
        metrics = validate(run)
        if history is not None:
            history.add({"step": steps, "epoch": run.epoch(steps)} | metrics)
            if steps == run.steps:
                show(run, steps, history)
            history.close()
            (settings.out / "curve.svg").write_text(learning_curve(read_history(history.path)), encoding="utf-8")
            save_npnet(run.result, path, metadata(run, metrics, steps))
            log.info("%s: %d steps over %d %ss.", path, steps, len(run.objective.training), run.objective.unit)
            for sentence in run.objective.conclusion(metrics):
                log.info("%s", sentence)
    return path


def prepare(settings: Settings, process: Process, scorers: Mapping[str, Scorer] | None = None) -> Run:
    """Read and check everything that the settings name, before anything is written but prompt embeddings."""
    if process.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    if isinstance(settings.objective, NoisePairs):
        settings, npnet, objective = prepare_pairs(settings, process)
    else:
        settings, npnet, objective = prepare_reward(settings, process, scorers)
    training = settings.training
    return Run(
        settings=settings,
        process=process,
        objective=objective,
        npnet=npnet,
        average=copy.deepcopy(npnet).eval() if training.ema else None,
        optimizer=torch.optim.AdamW(npnet.parameters(), lr=training.lr, weight_decay=training.weight_decay),
    )


def open_history(run: Run, start: int) -> History | None:
    """The log of the first process; from here on OUT holds this run."""
    training, held_out = len(run.objective.training), len(run.objective.validation)
    log.info("%d %ss to train on, %d held out, %d steps.", training, run.objective.unit, held_out, run.steps)
    if run.process.rank > 0:
        return None
    save_settings(run.settings)
    runtime = run.settings.runtime
    return History(run.settings.out, start, tensorboard=runtime.tensorboard, wandb=runtime.wandb)


def metadata(run: Run, metrics: dict[str, float], steps: int) -> dict[str, str]:
    """What the result says of itself, beside its config."""
    net = run.settings.net
    trained = {
        name: value for name, value in run.settings.flat().items() if name not in (*MAY_CHANGE, *NOT_IN_NPNET_TRAINING)
    }
    initial = {name: str(getattr(net, name).name) for name in ("init", "swin_weights") if getattr(net, name)}
    steps = {"steps": steps, "pairs_per_step": run.samples_per_step}
    return run.objective.metadata() | {
        "npnet.provenance": "trained by npnet fit",
        "npnet.training": json.dumps(trained | initial | steps),
        "npnet.validation": json.dumps({name: value for name, value in metrics.items() if math.isfinite(value)}),
    }
