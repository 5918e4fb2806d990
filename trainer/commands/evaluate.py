"""``npnet evaluate``: does golden noise help?"""

from __future__ import annotations

import dataclasses
import logging
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from npnet_core.redenoising import INVERSIONS_HELP
from trainer.bases import PRESETS, SAMPLERS, SPACINGS, Preset, default_preset
from trainer.collecting.keys import seed_range
from trainer.collecting.redenoising import REDENOISING, Redenoising
from trainer.collecting.scorers import HELP as SCORERS
from trainer.collecting.scorers import LazyScorer, clip_tokenizer, find_scorer, scorer_files
from trainer.commands import base_model
from trainer.commands.checks import check_least_one, check_seeds
from trainer.commands.nets import name_npnets
from trainer.commands.options import option, required, save_config
from trainer.commands.workers import this_worker
from trainer.data.prompts import read_prompt_set
from trainer.evaluation.dino import Dino
from trainer.evaluation.evaluate import METHODS, SEEDS, evaluate
from trainer.evaluation.fid import fid_of, find_pictures, load_inception
from trainer.evaluation.methods import NAMES, choose_methods
from trainer.evaluation.offload import offloaded
from trainer.evaluation.results import summarise
from trainer.evaluation.sampling_settings import OWN, every_setting
from trainer.report.report import write_report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Compare golden noise with standard noise: images of the same prompts and seeds, scored, with intervals.

    npnet evaluate --base models/sdxl-base --npnet run/npnet.safetensors --prompts prompts.txt --out evaluation
    npnet evaluate --base models/sdxl-base --npnet a=run1/npnet.safetensors b=run2/npnet.safetensors \\
        --prompts drawbench.csv --methods standard inversion npnet wrong-prompt --scorer hpsv2 imagereward \\
        --steps 10 50 --cfg 1 5.5 --seeds-per-prompt 4 --out evaluation
    npnet evaluate … --worker 0/4          on the first of four GPUs; the one that finishes last writes the report

    OUT/report.html is the answer. Stopped at any moment and started again with the same command it goes on where it
    was; prompts, seeds, settings, methods and metrics may be added later. Exit code 1 says that a metric could not be
    computed because its weights are missing: the others are in the report, which names it.
    """

    base: str = required(base_model.BASE, path=True)
    prompts: Path = required("txt, csv, tsv, json, jsonl or parquet file, or a folder with one per category")
    out: Path = required("the evaluation's folder")
    npnet: tuple[str, ...] = option((), "FILE or NAME=FILE of nets; a file's own name is the default")
    column: str | None = option(None, "of the prompts (default: prompt, prompts or caption)")
    limit: int | None = option(None, "use only the first so many prompts")
    seeds: tuple[int, ...] = option((SEEDS[0], SEEDS[-1]), "first and last of those that are drawn for each prompt")
    seeds_per_prompt: int = option(1, "how many are drawn, the same for a prompt every time")
    methods: tuple[str, ...] = option(METHODS, f"some of {', '.join(NAMES)}; standard is always there")
    scorer: tuple[str, ...] = option(("hpsv2",), SCORERS)
    selected_by: tuple[str, ...] = option((), "kinds among them that helped to choose what is compared: others report")

    preset: Literal[tuple(PRESETS)] | None = option(None, base_model.PRESET)
    sampler: tuple[str, ...] = option((), f"some of {', '.join(SAMPLERS)} (default: the preset's)")
    steps: tuple[int, ...] = option((), "of the schedule (default: the preset's)")
    spacing: tuple[str, ...] = option((OWN,), f"of the steps, some of {OWN} (the base model's), {', '.join(SPACINGS)}")
    cfg: tuple[float, ...] = option((), "guidance scales (default: the preset's)")
    size: tuple[str, ...] = option((), "WIDTHxHEIGHT in pixels (default: the base model's own)")

    redenoise_cfg: float | None = option(None, "inversion: guidance of the denoising step (default: the preset's)")
    inversion_cfg: float | None = option(None, "inversion: guidance of the inversion step (default: the preset's)")
    rounds: int = option(REDENOISING.rounds, "inversion: how often it is repeated")
    inversion: Literal["exact", "released", "fixed-point"] = option("exact", INVERSIONS_HELP)
    depth: int | None = option(None, "inversion: steps taken down and back (default: the preset's)")
    redenoise_with: str | None = option(None, base_model.SIBLING, path=True)
    repaint_rounds: int = option(1, "repaint: how often it is repeated")

    dataset: Path | None = option(None, "noise pairs: how much of their change does each net explain?")
    dino: Path | None = option(None, "a transformers folder of DINOv2: diversity by its features, too")
    fid: Path | None = option(None, "a folder of pictures to compute FID against")
    fid_weights: Path | None = option(None, "Inception's weights for it, as pytorch-fid publishes them")

    batch: int = option(4, "images at once")
    worker: str | None = option(None, "I/N: do part I of N, counted from 0 (torchrun says it by itself)")
    device: str | None = option(None, base_model.DEVICE)
    precision: Literal["fp32", "fp16", "bf16"] | None = option(None, base_model.PRECISION)
    base_config: str | None = option(None, base_model.CONFIG, path=True)
    lora: Path | None = option(None, base_model.LORA)

    def __post_init__(self) -> None:
        check_seeds(self)
        check_least_one(self, "batch", "limit")
        if not self.spacing:
            raise InputError("No --spacing came: give at least one.")
        if self.fid is not None and tuple(self.scorer) == ("none",):
            raise InputError("--fid came with --scorer none: FID is shown beside other metrics, so name one of those.")


def run(options: Options) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C
    worker = this_worker(options.worker)
    prompts = read_prompt_set(options.prompts, options.column)[: options.limit]
    files, missing = find_scorers(options.scorer)
    if strangers := sorted(set(options.selected_by) - set(scorer_files(options.scorer))):
        raise InputError(f"--selected-by {', '.join(strangers)} came, which scores nothing here: add it to --scorer.")
    npnets = {name: load_npnet(path) for name, path in name_npnets(options.npnet).items()}
    redenoising = redenoising_from(resolved(options, next(iter(PRESETS.values()))))
    choose_methods(options.methods, npnets, redenoising, options.repaint_rounds)  # complains before a model is loaded
    dino = None if options.dino is None else Dino(options.dino)
    reference = find_pictures(options.fid) if options.fid is not None else []
    inception = load_inception(options.fid_weights) if options.fid is not None else None
    base = base_model.load(options)
    options = dataclasses.replace(options, preset=options.preset or default_preset(base))
    options = resolved(options, PRESETS[options.preset], PRESETS[default_preset(base.sibling or base)])
    redenoising = redenoising_from(options)
    settings = every_setting(
        base,
        samplers=options.sampler,
        steps=options.steps,
        spacings=options.spacing,
        cfgs=options.cfg,
        sizes=options.size,
    )
    for npnet in npnets.values():
        npnet.to(base.device)
    scorers_tokenizer = clip_tokenizer(base) if files else nullcontext()
    with scorers_tokenizer as tokenizer, base_model.memory_for(base, f"{options.batch} images"):
        evaluation = evaluate(
            base,
            npnets,
            [LazyScorer(kind, path, tokenizer, base.device) for kind, path in files.items()],
            prompts,
            settings=settings,
            out=options.out,
            methods=options.methods,
            seeds=seed_range(options.seeds),
            seeds_per_prompt=options.seeds_per_prompt,
            redenoising=redenoising,
            repaint_rounds=options.repaint_rounds,
            batch=options.batch,
            worker=worker,
            dataset=options.dataset,
            dino=dino,
        )
    sizes = tuple(dict.fromkeys(f"{setting.width}x{setting.height}" for setting in settings))
    save_config(dataclasses.replace(options, size=sizes, worker=None), options.out / "evaluate.toml")
    code = 1 if missing or evaluation.missing else 0
    if evaluation.unscored:
        words = "%d scores are left to other workers: the last one writes the report. If all have ended, start again."
        log.info(words, evaluation.unscored)
        return code
    if not evaluation.rows:
        log.info("The images are in %s; without scores there is no report.", options.out / "images")
        return code
    about = evaluation.about | {
        "command": f"npnet evaluate --config {options.out / 'evaluate.toml'}",
        "prompts": str(options.prompts),
        "selecting": list(options.selected_by),
        "missing": missing + evaluation.about["missing"],
    }
    if inception is not None:
        with offloaded(base, npnets.values()):
            about["fid"] = fid_of(evaluation.rows, options.out, inception.to(base.device), reference, base.device)
        about["fid_reference"] = f"{options.fid.name}, {len(reference)} pictures"

    write_report(options.out, summarise(evaluation.rows, about))
    log.info("%s", options.out / "report.html")
    return code


def resolved(options: Options, preset: Preset, redenoising: Preset | None = None) -> Options:
    """The options with everything said that presets decide where nothing was asked for: how images are sampled, and by
    the preset ``redenoising``, which is a sibling's where one re-denoises, with what guidance noises are.
    """
    by = redenoising or preset
    decided = {
        "sampler": (preset.images.sampler,),
        "steps": (preset.images.steps,),
        "cfg": (preset.cfg,),
        "redenoise_cfg": by.cfg,
        "inversion_cfg": by.inversion_cfg,
        "depth": preset.depth,
    }
    return dataclasses.replace(
        options, **{name: value for name, value in decided.items() if getattr(options, name) in (None, ())}
    )


def redenoising_from(options: Options) -> Redenoising:
    return Redenoising(
        cfg=options.redenoise_cfg,
        inversion_cfg=options.inversion_cfg,
        rounds=options.rounds,
        inversion=options.inversion,
        depth=options.depth,
    )


def find_scorers(names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """(kind → file or folder, what is missing) of preference models as :data:`trainer.collecting.scorers.HELP` names
    them. A warning says what is missing while there is time to get it.

    Raises:
        InputError: for a kind that does not exist, or if all are missing.
    """
    found, missing = {}, []
    for kind, path in scorer_files(names).items():
        try:
            found[kind] = find_scorer(kind, path)
        except InputError as error:
            missing.append(str(error))
    if missing and not found:
        raise InputError(" ".join(missing))
    for sentence in missing:
        log.warning("%s The others are computed without it.", sentence)
    return found, missing
