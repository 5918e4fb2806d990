"""Does golden noise help? The paper's comparison, on one's own model, prompts and seeds::

    evaluation = evaluate(
        base,                        # trainer.bases.Base
        {"mine": npnet},             # name → net; {} for none
        scorers,                     # Scorer objects (or LazyScorer)
        [PromptRow("a red circle", "colour"), …],        # prompt, category=None; each once
        settings=[Setting(Schedule("ddim", 10), 1.0, height=32, width=32)],
        out=Path("evaluation"),
        methods=("standard", "inversion", "npnet", "wrong-prompt"),   # of methods.NAMES
        seeds=range(2_000_000, 3_000_000), seeds_per_prompt=3,
        redenoising=Redenoising(cfg=5.5, inversion_cfg=1.0),          # for inversion
        batch=50,
        about={"command": "npnet demo"},
    )
    results = summarise(evaluation.rows, evaluation.about)   # trainer.evaluation.results
    write_report(out, results)   # trainer.report.report

Two phases: images, with the base model on its device; scores, each preference model in turn, of the images as they are
on the disk. Whatever is on the disk already is not made again. The report is a room of its own.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from npnet_core.architectures import GoldenNet
from npnet_core.errors import InputError
from npnet_core.preference import KINDS, Scorer
from trainer import bases
from trainer.bases import Base
from trainer.collecting.redenoising import REDENOISING, Redenoising
from trainer.collecting.scorers import LazyScorer
from trainer.data.jsonl import read_shards, truncate_partial_line
from trainer.data.prompts import PromptRow
from trainer.evaluation.cost import cost_per_image
from trainer.evaluation.diagnostics import NO_GPU, diagnose
from trainer.evaluation.dino import Dino
from trainer.evaluation.diversity import diversity, groups_of, key, known_distances, measure, measures_of
from trainer.evaluation.draws import draw
from trainer.evaluation.folder import claim, facts, suffix, write_json
from trainer.evaluation.generate import make_images
from trainer.evaluation.methods import Method, check_methods, choose_methods
from trainer.evaluation.offload import offloaded
from trainer.evaluation.pictures import batches, every_picture
from trainer.evaluation.sampling_settings import Setting
from trainer.evaluation.score import is_scored, score_with

SEEDS = range(1025, 65536)  # none that collecting draws, if nothing else is asked of it
METHODS = ("standard", "npnet", "wrong-prompt")
FACTORS = {"hpsv2": 100, "hpsv2.1": 100, "imagereward": 100, "clipscore": 100}  # as the paper prints them
PACKAGES = ("npnet-golden-noise", "torch", "diffusers", "transformers")


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        rows: a dict per image and metric, as in scores.jsonl: ``setting``, ``method``, ``metric``, ``prompt``,
            ``category``, ``seed``, ``score``, ``image`` (its file, relative to the folder).
        about: what the report says of the run, JSON types only.
        unscored: how many of (image, metric) other workers still have to score.
        missing: a sentence for each metric that could not be computed.
    """

    rows: list[dict]
    about: dict
    unscored: int
    missing: list[str]


def evaluate(
    base: Base,
    npnets: Mapping[str, GoldenNet],
    scorers: Sequence[Scorer | LazyScorer],
    prompts: Sequence[PromptRow],
    *,
    settings: Sequence[Setting],
    out: Path,
    methods: Sequence[str] = METHODS,
    seeds: range = SEEDS,
    seeds_per_prompt: int = 1,
    redenoising: Redenoising = REDENOISING,
    repaint_rounds: int = 1,
    batch: int = 4,
    worker: tuple[int, int] = (0, 1),
    dataset: Path | None = None,
    dino: Dino | None = None,
    about: Mapping[str, object] | None = None,
) -> Evaluation:
    """Make every image that is missing, score it, and gather what there is.

    Args:
        base: leaves its device while images are scored, and comes back.
        npnets: name → net, in eval mode, on ``base.device`` or the CPU.
        scorers: a LazyScorer is loaded when its turn comes and leaves afterwards.
        prompts: each once.
        settings: how images are sampled; every method is sampled with all of them.
        out: the evaluation's folder.
        methods: of :data:`trainer.evaluation.methods.NAMES`; ``standard`` is always there.
        seeds, seeds_per_prompt: each prompt gets so many of these seeds, the same ones every time.
        redenoising, repaint_rounds: settings of the methods ``inversion`` and ``repaint``. A
            :class:`trainer.collecting.recipe.Recipe` re-denoises on its own schedule, else it is the image's.
        batch: images at once.
        worker: (i, n), to do the i-th of n parts of the prompts.
        dataset: noise pairs of the same kind of base model, for the diagnostics.
        dino: by whose features diversity is measured too.
        about: entries to add to what the report says of the run; ``selecting`` names metrics that helped to choose what
            is compared, see :func:`trainer.evaluation.equal_cost.selecting_metrics`.

    Raises:
        InputError: for settings, nets or prompts that cannot be used, a method that chooses by a preference model which
            is not among ``scorers`` or cannot be loaded, and for a folder that holds another run.
    """
    chosen = choose_methods(methods, npnets, redenoising, repaint_rounds)
    check_methods(chosen, base, settings, redenoising)
    choosing = choosers(chosen, scorers)
    draws = draw(prompts, seeds, seeds_per_prompt)
    pictures = every_picture(draws, settings, chosen)
    claim(out, worker, facts(base, scorers, chosen, redenoising, repaint_rounds, dino))
    number = {row.prompt: i for i, row in enumerate(prompts)}
    mine = [each for each in draws if number[each.prompt] % worker[1] == worker[0]]
    files = tuple(out / f"{name}{suffix(worker)}.jsonl" for name in ("scores", "cost", "diversity"))
    scores, cost, distances = files
    for path in files:
        truncate_partial_line(path)

    if worker[0] == 0 and npnets:
        write_json(out / "diagnostics.json", diagnose(base, npnets, draws, settings[0], dataset))
    judges = {kind: each if isinstance(each, Scorer) else each.load() for kind, each in choosing.items()}
    make_images(base, mine, settings, chosen, out, batch=batch, cost=cost, judges=judges)
    judges.clear()  # each is loaded again when its turn comes
    groups, apart = groups_of(every_picture(mine, settings, chosen)), known_distances(read_shards(out, "diversity"))
    for each in measures_of(base):
        measure(each, groups, out, distances, apart, batch)
    known = {(row["image"], row["metric"]): row["score"] for row in read_shards(out, "scores")}
    missing: dict[str, str] = {}  # kind: why
    with offloaded(base, npnets.values()):
        if dino is not None and any(key("dino", group) not in apart for group in groups):
            measure(dino.load(base.device), groups, out, distances, apart, batch)
            bases.free_memory(base.device)
        chunks = batches(mine, settings, chosen, batch)
        for each in scorers:
            if not all(is_scored(each.kind, chunk, known) for chunk in chunks):
                missing |= score_with(each, chunks, out, scores, known)
    known |= {(row["image"], row["metric"]): row["score"] for row in read_shards(out, "scores")}  # by other workers
    diagnostics = out / "diagnostics.json"
    metrics = [each.kind for each in scorers if each.kind not in missing]
    wanted = [(picture, metric) for picture in pictures for metric in metrics]
    rows = [
        picture.row(metric, known[picture.image, metric])
        for picture, metric in wanted
        if (picture.image, metric) in known
    ]
    return Evaluation(
        rows,
        {
            "command": "npnet evaluate",
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "base_model": base.source,
            "nets": {name: dict(sorted(npnet.metadata.items())) for name, npnet in npnets.items()},
            "settings": {setting.name: setting.to_dict() for setting in settings},
            "methods": {method.name: method.description for method in chosen},
            "metrics": {metric: about_metric(metric) for metric in metrics},
            "cost": cost_per_image(read_shards(out, "cost")),
            "diversity": diversity(groups_of(pictures), known_distances(read_shards(out, "diversity"))),
            "diagnostics": json.loads(diagnostics.read_text(encoding="utf-8")) if diagnostics.exists() else {},
            "missing": [*missing.values(), *([NO_GPU] if npnets and base.device.type != "cuda" else ())],
        }
        | dict(about or {}),
        len(wanted) - len(rows),
        list(missing.values()),
    )


def choosers(methods: Sequence[Method], scorers: Sequence[Scorer | LazyScorer]) -> dict[str, Scorer | LazyScorer]:
    """Kind → the preference models that methods choose among noises by.

    Raises:
        InputError: for one that is not among the scorers.
    """
    there = {each.kind: each for each in scorers}
    wanted = {method.name: method.baseline.judge for method in methods if method.baseline.judge is not None}
    for name, kind in wanted.items():
        if kind not in there:
            raise InputError(f"{name} chooses by {kind}, which scores nothing here: add it to --scorer.")
    return {kind: there[kind] for kind in wanted.values()}


def about_metric(kind: str) -> dict:
    """``factor`` by which the paper's tables multiply, and ``label``."""
    factor, title = FACTORS.get(kind, 1), KINDS[kind].title if kind in KINDS else kind
    return {"factor": factor, "label": title if factor == 1 else f"{title} ×{factor}"}
