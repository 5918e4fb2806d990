"""``npnet demo``: the whole paper in the shapes world, collect → select → fit → apply → evaluate, on one page."""

from __future__ import annotations

import logging
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from npnet_core.atomic_write import atomic_write
from npnet_core.errors import InputError
from trainer.commands.options import option
from trainer.shapes import WEIGHTS

if TYPE_CHECKING:
    from trainer.shapes.pipeline_stages import Scale

log = logging.getLogger(__name__)

THREADS = 2  # the last bits of a product depend on how many there are, and a fit on its last bits

TITLE = "Golden noise in the shapes world"
METRICS = {
    "shapes": {"factor": 1, "label": "caption log-likelihood"},
    "captions-right": {"factor": 1, "label": "captions right"},
}
INTRODUCTION = [
    "The whole method on a tiny text-to-image model of two coloured shapes: pairs of noises were collected and "
    "selected, nets were fitted on them, and here is what their golden noise does to pictures of captions and seeds "
    "that no net was fitted on and no setting chosen on. inversion is the re-denoised noise itself, which nets learn "
    "to predict; wrong-prompt is the control: the noise made for another caption.",
    "Two settings were chosen on other captions: guidance 1, where the effect is strong, and guidance 5.5 with the "
    "same ten steps, where it is weak. The score is a detector's log-likelihood of what the caption says; "
    "captions right is whether all of it is there and nothing else.",
]


@dataclass(frozen=True)
class Options:
    """Run the whole method on a tiny text-to-image model that comes with this package: no GPU, no download.

    npnet demo --out demo
    npnet demo --out demo-full --full
    npnet demo --out demo-full --tables

    The page is OUT/report.html. Stopped at any moment and started again with the same command it goes on where it was;
    only models that are being trained anew start over.
    """

    out: Path = option(Path("demo"), "the demo's folder")
    full: bool = option(False, "three times the pairs and the training, and 1,024 pictures for each figure")
    tables: bool = option(False, "instead the paper's tables in small, into OUT/tables.md, as --full; over an hour")
    retrain: bool = option(False, "first train the tiny models anew, into OUT/weights-SEED, and use those")
    seed: int = option(0, "of the fits and of the models that --retrain makes")


def run(options: Options) -> None:
    from trainer.shapes import pipeline_stages
    from trainer.shapes.workers import in_parallel

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out} is a file, and the demo fills a folder: name a new or empty one.")
    torch.set_num_threads(THREADS)
    options.out.mkdir(parents=True, exist_ok=True)
    weights = retrained(options) if options.retrain else WEIGHTS
    scale = pipeline_stages.FULL if options.full or options.tables else pipeline_stages.QUICK
    dataset = options.out / "pairs"
    in_parallel(pipeline_stages.collect_pairs, weights, dataset, scale)
    if options.tables:
        write_tables(options, weights, dataset, scale)
    else:
        write_report(options, weights, dataset, scale)


def write_tables(options: Options, weights: Path, dataset: Path, scale: Scale) -> None:
    """OUT/tables.md."""
    from trainer.shapes.tables import make_tables

    tables = make_tables(weights, dataset, scale, options.out / "tables", options.seed)
    (options.out / "tables.md").write_text(tables, encoding="utf-8")
    print(tables)


def write_report(options: Options, weights: Path, dataset: Path, scale: Scale) -> None:
    """OUT/report.html and what goes with it."""
    from trainer.shapes import pipeline_stages
    from trainer.shapes.page import write_page
    from trainer.shapes.workers import in_parallel

    nets = {
        name: pipeline_stages.fit_net(dataset, options.out / f"fit-{name}", seed=options.seed, **changes)
        for name, changes in pipeline_stages.NETS.items()
    }
    what = weights, nets, list(pipeline_stages.two_settings().values()), options.out, scale
    in_parallel(pipeline_stages.compare, *what)
    about = {"command": command(options), "title": TITLE, "introduction": INTRODUCTION, "metrics": METRICS}
    evaluation = pipeline_stages.compare(*what, about=about)
    write_page(options.out, pipeline_stages.load_world(weights), nets, dataset, evaluation)
    log.info("%s", options.out / "report.html")


def command(options: Options) -> str:
    """What was typed."""
    flags = [f"--{name}" for name in ("full", "retrain") if getattr(options, name)]
    return shlex.join(["npnet", "demo", "--out", str(options.out), *flags, "--seed", str(options.seed)])


def retrained(options: Options) -> Path:
    """The folder of models that are trained now, or were in a run before; prints how well they do."""
    from trainer.shapes.assess import assess
    from trainer.shapes.train import retrain

    folder = options.out / f"weights-{options.seed}"
    assessment = folder / "assessment.md"
    if not assessment.exists():
        retrain(folder, options.seed)
        with atomic_write(assessment) as partial:  # that it is there says that the models are
            partial.write_text(assess(folder), encoding="utf-8")
    print(assessment.read_text(encoding="utf-8"))
    return folder
