"""``npnet demo``: the whole paper in the shapes world, collect → select → fit → apply → evaluate, on one page."""

from __future__ import annotations

import logging
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from npnet_core.atomic_write import atomic_write
from npnet_core.errors import InputError
from trainer.commands.options import option
from trainer.distributed import find_device

if TYPE_CHECKING:
    from trainer.shapes.worlds import Scale, World

log = logging.getLogger(__name__)

FOR_COMFYUI = (300, 2)  # captions, and seeds for each, of a net that need not wait for the report
RIVALS = ("cfg-5.5-first-1", "cfg-3-steps-3", "cfg-3-steps-5")  # around the cost of a net; A chose the guidance
METHODS = ("standard", "inversion", "npnet", *RIVALS, "wrong-prompt")
THREADS = 2  # the last bits of a product depend on how many there are, and a fit on its last bits

TITLE = "Golden noise in the shapes world"
LABELS = {
    "shapes": "caption log-likelihood",
    "shapes-a": "caption log-likelihood, detector A",
    "shapes-b": "caption log-likelihood, detector B",
    "captions-right": "captions right",
}


@dataclass(frozen=True)
class Options:
    """Run the whole method on a tiny text-to-image model that comes with this package: no GPU, no download.

    npnet demo --out demo
    npnet demo --base flow --out demo-flow
    npnet demo --out demo-full --full
    npnet demo --out demo --comfyui ~/ComfyUI
    npnet demo --out demo-full --tables

    The page is OUT/report.html. Stopped at any moment and started again with the same command it goes on where it was;
    only models that are being trained anew start over.
    """

    out: Path = option(Path("demo"), "the demo's folder")
    base: Literal["sd", "flow", "first"] = option("sd", "a Stable Diffusion, a Z-Image, or 0.1.0's smaller world")
    full: bool = option(False, "four times the pairs and the training, and 1,024 pictures for each figure")
    tables: bool = option(False, "instead the paper's tables in small, into OUT/tables.md, as --full; over an hour")
    retrain: bool = option(False, "first train the tiny models anew, into OUT/weights-SEED, and use those; hours")
    comfyui: Path | None = option(
        None, "instead put base, net and detector into this ComfyUI folder, with a workflow; a new net takes minutes"
    )
    seed: int = option(0, "of the fits and of the models that --retrain makes")
    device: str = option("cpu", "where --retrain trains: cpu, cuda, cuda:1")


def run(options: Options) -> None:
    from trainer.shapes import pipeline_stages
    from trainer.shapes.workers import in_parallel
    from trainer.shapes.worlds import WORLDS

    if options.retrain and options.base == "first":
        raise InputError("--retrain came with --base first, whose models are 0.1.0's for good: use --base sd or flow.")
    if options.comfyui is not None:
        check_for_comfyui(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out} is a file, and the demo fills a folder: name a new or empty one.")
    torch.set_num_threads(THREADS)
    options.out.mkdir(parents=True, exist_ok=True)
    world = WORLDS[options.base](*([retrained(options)] if options.retrain else []))
    if options.comfyui is not None:
        put_into_comfyui(options, world)
        return
    scale = world.full if options.full or options.tables else world.quick
    dataset = options.out / "pairs"
    in_parallel(pipeline_stages.collect_pairs, world, dataset, scale)
    if options.tables:
        write_tables(options, world, dataset, scale)
    else:
        write_report(options, world, dataset, scale)


def check_for_comfyui(options: Options) -> None:
    """Raise InputError for options that do not go with ``--comfyui``, or a folder that is none."""
    from trainer.shapes.in_comfyui import check_comfyui

    if options.base != "sd":
        raise InputError(f"--comfyui came with --base {options.base}, but its loader reads an sd: use --base sd.")
    if options.full or options.tables:
        raise InputError("--comfyui writes no report: run the demo with --full or --tables first, then with --comfyui.")
    check_comfyui(options.comfyui)


def put_into_comfyui(options: Options, world: World) -> None:
    """The demo's net if it has run, else one of fewer pairs, where ComfyUI finds it, with all that it needs."""
    from npnet_core.npd import read_manifest
    from trainer import bases
    from trainer.shapes import pipeline_stages
    from trainer.shapes.in_comfyui import install
    from trainer.shapes.workers import in_parallel
    from trainer.shapes.worlds import Scale

    npnet, pairs = options.out / "fit-adapter" / "npnet.safetensors", options.out / "pairs"
    if npnet.exists() and pairs.exists():
        base = bases.fingerprint(pipeline_stages.load_models(world).base)[:16]
        if read_manifest(pairs).recorded.get("base_fingerprint") != base:
            raise InputError(f"{options.out} holds a demo of another base model than sd: name another --out.")
    if not npnet.exists():
        dataset, scale = options.out / "pairs-comfyui", Scale(*FOR_COMFYUI, 0, 0)
        in_parallel(pipeline_stages.collect_pairs, world, dataset, scale)
        of_the_base = pipeline_stages.NETS["adapter"]
        npnet = pipeline_stages.fit_net(world, dataset, options.out / "fit-comfyui", seed=options.seed, **of_the_base)
    for path in install(world, npnet, options.comfyui):
        print(path)
    log.info("Open the last one from ComfyUI's workflows; this pack has to be in its custom_nodes.")


def write_tables(options: Options, world: World, dataset: Path, scale: Scale) -> None:
    """OUT/tables.md."""
    from trainer.shapes.tables import make_tables

    tables = make_tables(world, dataset, scale, options.out / "tables", options.seed)
    (options.out / "tables.md").write_text(tables, encoding="utf-8")
    print(tables)


def write_report(options: Options, world: World, dataset: Path, scale: Scale) -> None:
    """OUT/report.html and what goes with it."""
    from trainer.shapes import pipeline_stages
    from trainer.shapes.page import write_page
    from trainer.shapes.workers import in_parallel

    nets = {
        name: pipeline_stages.fit_net(world, dataset, options.out / f"fit-{name}", seed=options.seed, **changes)
        for name, changes in pipeline_stages.NETS.items()
    }
    what = world, nets, list(pipeline_stages.demo_settings(world).values()), options.out, scale
    in_parallel(pipeline_stages.compare, *what, methods=METHODS)
    metrics = dict.fromkeys((world.reports, "captions-right", world.selects))
    about = {
        "command": command(options),
        "title": TITLE,
        "introduction": introduction(world),
        "metrics": {metric: {"factor": 1, "label": LABELS[metric]} for metric in metrics},
        "selecting": [world.selects] if world.reports != world.selects else list(metrics),  # of one detector
    }
    evaluation = pipeline_stages.compare(*what, methods=METHODS, about=about)
    write_page(options.out, world, pipeline_stages.load_models(world).base, nets, dataset, evaluation)
    log.info("%s", options.out / "report.html")


def introduction(world: World) -> list[str]:
    """Two paragraphs."""
    steps = world.recipe.schedule.steps
    judged = "The score is a detector's log-likelihood of what the caption says"
    if world.reports != world.selects:
        judged = (
            "Two detectors look at the pictures: A selected the pairs and chose the settings, B, which differs in "
            "architecture, seed and training pictures, only reports. The score is B's log-likelihood of what the "
            "caption says"
        )
    return [
        "The whole method on a tiny text-to-image model of coloured shapes: pairs of noises were collected and "
        "selected, nets were fitted on them, and here is what their golden noise does to pictures of captions and "
        "seeds that no net was fitted on and no setting chosen on. inversion is the re-denoised noise itself, which "
        "nets learn to predict; cfg-5.5-first-1, cfg-3-steps-3 and cfg-3-steps-5 are what predictions buy otherwise, "
        "guidance on the first step, and guidance 3 in three and in five steps; wrong-prompt is the control: the noise "
        "made for another caption.",
        f"Two settings: guidance 1 in {steps // 2} steps, where a net that is made of the base model puts guidance "
        f"into the noise for one prediction, and guidance {world.guidance:g} in {steps} steps, where guidance is there "
        f"already. {judged}; captions right is whether all of it is there and nothing else.",
    ]


def command(options: Options) -> str:
    """What was typed."""
    flags = [f"--{name}" for name in ("full", "retrain") if getattr(options, name)]
    out = ["--out", str(options.out), "--base", options.base]
    return shlex.join(["npnet", "demo", *out, *flags, "--seed", str(options.seed)])


def retrained(options: Options) -> Path:
    """The folder of models that are trained now, or were in a run before; prints how well they do."""
    from trainer.shapes.assess import assess
    from trainer.shapes.train import retrain

    folder = options.out / f"weights-{options.seed}"
    assessment = folder / "assessment.md"
    if not assessment.exists():
        retrain(folder, options.seed, find_device(options.device))
        with atomic_write(assessment) as partial:  # that it is there says that the models are
            partial.write_text(assess(folder), encoding="utf-8")
    print(assessment.read_text(encoding="utf-8"))
    return folder
