"""``npnet evaluate``: does golden noise help? The paper's comparison, on one's own model, prompts and seeds.

As a library::

    evaluation = evaluate(
        base,                        # trainer.bases.Base
        {"mine": npnet},             # name → NPNet; {} for none
        scorers,                     # Scorer objects (or LaterScorer)
        [PromptRow("a red circle", "colour"), …],        # trainer.prompts.PromptRow(prompt, category=None), each once
        settings=[Setting(Schedule("ddim", 10), 1.0, height=32, width=32)],     # trainer.settings.Setting
        out=Path("evaluation"),
        methods=("standard", "inversion", "npnet", "wrong-prompt"),   # of trainer.methods.NAMES
        seeds=range(2_000_000, 3_000_000), seeds_per_prompt=3,
        redenoising=Redenoising(cfg=5.5, inversion_cfg=1.0),          # trainer.methods.Redenoising, for inversion
        batch=50,
        about={"command": "npnet demo"},
    )
    results = summarise(evaluation.rows, evaluation.about)            # trainer.results
    write_report(out, results)                                        # trainer.report

Three phases: images, with the base model on its device; scores, each preference model in turn, read back from the
images on the disk; the report. Whatever is on the disk already is not made again.
"""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from npnet_core.errors import InputError
from npnet_core.model import NPNet
from npnet_core.preference import KINDS, Scorer

from . import bases
from .bases import Base
from .cost import cost_per_image
from .lines import mend_lines, read_lines
from .methods import REDENOISING, Method, Redenoising, check_methods, choose_methods
from .prompts import PromptRow
from .scorers import LaterScorer
from .settings import Setting
from .shots import draw, every_shot, is_scored, make_images, score_images

log = logging.getLogger(__name__)

SEEDS = range(1025, 65536)  # none that the paper's collection draws
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
    """

    rows: list[dict]
    about: dict
    unscored: int


def evaluate(
    base: Base,
    npnets: Mapping[str, NPNet],
    scorers: Sequence[Scorer | LaterScorer],
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
    about: Mapping[str, object] | None = None,
) -> Evaluation:
    """Make every image that is missing, score it, and gather what there is.

    Args:
        base: leaves its device while images are scored, and comes back.
        npnets: name → net, in eval mode, on ``base.device`` or the CPU.
        scorers: a LaterScorer is loaded when its turn comes and leaves afterwards.
        prompts: each once.
        settings: how images are sampled; every method is sampled with all of them.
        out: the evaluation's folder.
        methods: of :data:`trainer.methods.NAMES`; ``standard`` is always there.
        seeds, seeds_per_prompt: each prompt gets so many of these seeds, the same ones every time.
        redenoising, repaint_rounds: settings of the methods ``inversion`` and ``repaint``.
        batch: images at once.
        worker: (i, n), to do the i-th of n parts of the prompts.
        about: entries to add to what the report says of the run.

    Raises:
        InputError: for settings, nets or prompts that cannot be used, and for a folder that holds another run.
    """
    chosen = choose_methods(methods, npnets, redenoising, repaint_rounds)
    check_methods(chosen, base, settings, redenoising)
    draws = draw(prompts, seeds, seeds_per_prompt)
    shots = every_shot(draws, settings, chosen)
    claim(out, worker, facts(base, npnets, scorers, chosen, redenoising, repaint_rounds))
    number = {row.prompt: i for i, row in enumerate(prompts)}
    mine = [each for each in draws if number[each.prompt] % worker[1] == worker[0]]
    scores, cost = (out / f"{name}{suffix(worker)}.jsonl" for name in ("scores", "cost"))
    mend_lines(scores), mend_lines(cost)

    make_images(base, mine, settings, chosen, out, batch=batch, cost=cost)
    known = {(row["image"], row["metric"]): row["score"] for row in read_lines(out, "scores")}
    missing: dict[str, str] = {}
    with resting(base, npnets.values()):
        ours = every_shot(mine, settings, chosen)
        for each in scorers:
            if not is_scored(each.kind, ours, known):
                missing |= score_with(each, ours, out, scores, known, batch)
    metrics = [each.kind for each in scorers if each.kind not in missing]
    wanted = [(shot, metric) for shot in shots for metric in metrics]
    rows = [shot.row(metric, known[shot.image, metric]) for shot, metric in wanted if (shot.image, metric) in known]
    return Evaluation(
        rows,
        {
            "command": "npnet evaluate",
            "versions": {name: version(name) for name in PACKAGES},
            "base_model": base.source,
            "nets": {name: dict(npnet.metadata) for name, npnet in npnets.items()},
            "settings": {setting.name: setting.to_dict() for setting in settings},
            "methods": {method.name: method.description for method in chosen},
            "metrics": {metric: about_metric(metric) for metric in metrics},
            "cost": cost_per_image(read_lines(out, "cost")),
            "diagnostics": {},
            "missing": list(missing.values()),
        }
        | dict(about or {}),
        len(wanted) - len(rows),
    )


def score_with(
    each: Scorer | LaterScorer, shots: Sequence, out: Path, scores: Path, known: dict, batch: int
) -> dict[str, str]:
    """Score with one preference model. Returns {} or, if it cannot be loaded, {kind: why}: the others still run."""
    if isinstance(each, Scorer):
        score_images(each, shots, out, scores, known, batch=batch)
        return {}
    try:
        scorer = each.load()
    except InputError as error:
        log.warning("%s", error)
        return {each.kind: str(error)}
    score_images(scorer, shots, out, scores, known, batch=batch)
    scorer.model.to("cpu")
    free(each.device)
    return {}


@contextmanager
def resting(base: Base, npnets: Iterator[NPNet]) -> Iterator[None]:
    """Within the block base model and nets are on the CPU."""
    nets = [(npnet, next(npnet.parameters()).device) for npnet in npnets]
    for npnet, _ in nets:
        npnet.to("cpu")
    for part in bases.PARTS:
        bases.move(base, part, "cpu")
    free(base.device)
    try:
        yield
    finally:
        for part in bases.PARTS:
            bases.move(base, part, base.device)
        for npnet, device in nets:
            npnet.to(device)


def free(device: torch.device) -> None:
    """Give the device's memory back that nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def suffix(worker: tuple[int, int]) -> str:
    """Of a worker's own files."""
    return "" if worker[1] == 1 else f"-{worker[0]}of{worker[1]}"


def about_metric(kind: str) -> dict:
    """``factor`` by which the paper's tables multiply, and ``label``."""
    factor, title = FACTORS.get(kind, 1), KINDS[kind].title if kind in KINDS else kind
    return {"factor": factor, "label": title if factor == 1 else f"{title} ×{factor}"}


# -- one folder, one comparison ---------------------------------------------------------------------------------------


def facts(
    base: Base,
    npnets: Mapping[str, NPNet],
    scorers: Sequence[Scorer | LaterScorer],
    methods: Sequence[Method],
    redenoising: Redenoising,
    repaint_rounds: int,
) -> dict[str, str]:
    """What must be equal for all images and scores of a folder. Prompts, seeds, settings, methods and metrics may be
    added."""
    names = {method.name for method in methods}
    return {
        "base model": bases.fingerprint(base)[:16],
        "precision": str(base.dtype).removeprefix("torch."),
        **{f"net {name}": weight_hash(npnet)[:16] for name, npnet in npnets.items()},
        **({"inversion": str(redenoising)} if "inversion" in names else {}),
        **({"repaint rounds": str(repaint_rounds)} if "repaint" in names else {}),
        **{f"weights of {each.kind}": str(each.path.resolve()) for each in scorers if isinstance(each, LaterScorer)},
    }


def weight_hash(npnet: NPNet) -> str:
    """SHA-256 of a net's config and weights."""
    import hashlib

    digest = hashlib.sha256(json.dumps(npnet.config.to_dict(), sort_keys=True).encode())
    for value in npnet.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def claim(out: Path, worker: tuple[int, int], facts: Mapping[str, str]) -> None:
    """Write down what a folder's images are made with, after comparing it with what every worker has written.

    Raises:
        InputError: if the folder holds another run (it says how it differs), or something else.
    """
    claims = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("made-with*.json"))}
    if not claims and (out / "images").exists():
        raise InputError(f"{out} holds images and no made-with.json: choose a new folder, or the one of an evaluation.")
    differing = {
        f"{name} {theirs[name]}, not {value}"
        for theirs in claims.values()
        for name, value in facts.items()
        if theirs.get(name, value) != value
    }
    if differing:
        named = "; ".join(sorted(differing))
        raise InputError(f"{out} already holds another run ({named}): use its settings or another folder.")
    path = out / f"made-with{suffix(worker)}.json"
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, claims.get(path, {}) | dict(facts))


def write_json(path: Path, content: object) -> None:
    """Write a file that is there once it is whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    os.replace(partial, path)
