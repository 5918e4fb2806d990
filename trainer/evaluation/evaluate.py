"""``npnet evaluate``: does golden noise help? The paper's comparison, on one's own model, prompts and seeds.

As a library::

    evaluation = evaluate(
        base,                        # trainer.bases.Base
        {"mine": npnet},             # name → net; {} for none
        scorers,                     # Scorer objects (or LaterScorer)
        [PromptRow("a red circle", "colour"), …],        # trainer.prompts.PromptRow(prompt, category=None), each once
        settings=[Setting(Schedule("ddim", 10), 1.0, height=32, width=32)],     # trainer.settings.Setting
        out=Path("evaluation"),
        methods=("standard", "inversion", "npnet", "wrong-prompt"),   # of trainer.methods.NAMES
        seeds=range(2_000_000, 3_000_000), seeds_per_prompt=3,
        redenoising=Redenoising(cfg=5.5, inversion_cfg=1.0),          # trainer.redenoising.Redenoising, for inversion
        batch=50,
        about={"command": "npnet demo"},
    )
    results = summarise(evaluation.rows, evaluation.about)            # trainer.results
    write_report(out, results)                                        # trainer.report

Three phases: images, with the base model on its device; scores, each preference model in turn, of the images as they
are on the disk; the report. Whatever is on the disk already is not made again.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import logging
import platform
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from npnet_core.architectures import GoldenNet
from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from npnet_core.preference import KINDS, Scorer
from npnet_core.redenoise import INVERSIONS_HELP
from npnet_core.whole import whole
from trainer import bases
from trainer.bases import SAMPLERS, SPACINGS, Base
from trainer.collecting.keys import seed_range
from trainer.collecting.redenoising import REDENOISING, Redenoising
from trainer.collecting.scorers import HELP as SCORERS
from trainer.collecting.scorers import LaterScorer, clip_words, find_scorer, scorer_files
from trainer.commands.options import option, required, save_config
from trainer.commands.workers import this_worker
from trainer.data.jsonl import mend_lines, read_lines
from trainer.data.prompts import PromptRow, read_prompt_set
from trainer.distributed import find_device
from trainer.evaluation.cost import cost_per_image
from trainer.evaluation.diagnostics import NO_GPU, diagnose
from trainer.evaluation.fid import find_pictures, frechet_distance, inception_features, load_inception
from trainer.evaluation.methods import NAMES, Method, check_methods, choose_methods
from trainer.evaluation.pictures import Shot, batches, draw, every_shot, is_scored, make_images, score_images
from trainer.evaluation.settings import OWN, Setting, every_setting

log = logging.getLogger(__name__)

SEEDS = range(1025, 65536)  # none that collecting draws, if nothing else is asked of it
METHODS = ("standard", "npnet", "wrong-prompt")
FACTORS = {"hpsv2": 100, "hpsv2.1": 100, "imagereward": 100, "clipscore": 100}  # as the paper prints them
PACKAGES = ("npnet-golden-noise", "torch", "diffusers", "transformers")
ENDS = 1 << 20  # bytes of the beginning and the end of a file that tell it apart


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

    base: str = required("diffusers folder, single file or hub id of the base model")
    prompts: Path = required("txt, csv, tsv, json, jsonl or parquet file, or a folder with one per category")
    out: Path = required("the evaluation's folder")
    npnet: tuple[str, ...] = option((), "FILE or NAME=FILE of nets; a file's own name is the default")
    column: str | None = option(None, "of the prompts (default: prompt, prompts or caption)")
    limit: int | None = option(None, "use only the first so many prompts")
    seeds: tuple[int, ...] = option((SEEDS[0], SEEDS[-1]), "first and last of those that are drawn for each prompt")
    seeds_per_prompt: int = option(1, "how many are drawn, the same for a prompt every time")
    methods: tuple[str, ...] = option(METHODS, f"some of {', '.join(NAMES)}; standard is always there")
    scorer: tuple[str, ...] = option(("hpsv2",), SCORERS)

    sampler: tuple[str, ...] = option(("ddim",), f"some of {', '.join(SAMPLERS)}")
    steps: tuple[int, ...] = option((50,), "of the schedule")
    spacing: tuple[str, ...] = option((OWN,), f"of the steps, some of {OWN} (the base model's), {', '.join(SPACINGS)}")
    cfg: tuple[float, ...] = option((5.5,), "guidance scales")
    size: tuple[str, ...] = option((), "WIDTHxHEIGHT in pixels (default: the base model's own)")

    redenoise_cfg: float = option(REDENOISING.cfg, "inversion: guidance of the denoising step")
    inversion_cfg: float = option(REDENOISING.inversion_cfg, "inversion: guidance of the inversion step")
    rounds: int = option(REDENOISING.rounds, "inversion: how often it is repeated")
    inversion: Literal["exact", "released", "fixed-point"] = option("exact", INVERSIONS_HELP)
    depth: int = option(REDENOISING.depth, "inversion: steps taken down and back")
    repaint_rounds: int = option(1, "repaint: how often it is repeated")

    dataset: Path | None = option(None, "noise pairs: how much of their change does each net explain?")
    fid: Path | None = option(None, "a folder of pictures to compute FID against")
    fid_weights: Path | None = option(None, "Inception's weights for it, as pytorch-fid publishes them")

    batch: int = option(4, "images at once")
    worker: str | None = option(None, "I/N: do part I of N, counted from 0 (torchrun says it by itself)")
    device: str | None = option(None, "cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    precision: Literal["fp32", "fp16", "bf16"] | None = option(None, "of the base model (default: fp16 on a GPU)")
    base_config: str | None = option(None, "for a single-file base model: a diffusers folder or hub id of its kind")
    lora: Path | None = option(None, "a LoRA to add to the base model")

    def __post_init__(self) -> None:
        if len(self.seeds) != 2 or not 0 < self.seeds_per_prompt <= len(seed_range(self.seeds)):
            raise InputError(
                f"Prompts without seeds make no images: {self.seeds_per_prompt} seeds per prompt from --seeds "
                f"{' '.join(map(str, self.seeds))} came; give the first and the last seed, and ask for 1 or more of "
                "those that lie between them."
            )
        for name in ("batch", "limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)} came: give at least 1.")
        for name in ("sampler", "steps", "spacing", "cfg"):
            if not getattr(self, name):
                raise InputError(f"No --{name} came: give at least one.")
        if self.fid is not None and tuple(self.scorer) == ("none",):
            raise InputError("--fid came with --scorer none: FID is shown beside other metrics, so name one of those.")


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


def run(options: Options) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C
    worker = this_worker(options.worker)
    prompts = read_prompt_set(options.prompts, options.column)[: options.limit]
    files, missing = find_scorers(options.scorer)
    npnets = {name: load_npnet(path) for name, path in name_npnets(options.npnet).items()}
    redenoising = Redenoising(
        cfg=options.redenoise_cfg,
        inversion_cfg=options.inversion_cfg,
        rounds=options.rounds,
        inversion=options.inversion,
        depth=options.depth,
    )
    choose_methods(options.methods, npnets, redenoising, options.repaint_rounds)  # complains before a model is loaded
    reference = find_pictures(options.fid) if options.fid is not None else []
    inception = load_inception(options.fid_weights) if options.fid is not None else None
    base = bases.load_base(
        options.base,
        config=options.base_config,
        device=find_device(options.device),
        precision=options.precision,
        lora=options.lora,
    )
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
    with clip_words(base) if files else nullcontext() as words:
        try:
            evaluation = evaluate(
                base,
                npnets,
                [LaterScorer(kind, path, words, base.device) for kind, path in files.items()],
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
            )
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"The memory of {base.device} does not hold {options.batch} images at once: use a smaller --batch."
            ) from error
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
        "missing": missing + evaluation.about["missing"],
    }
    if inception is not None:
        with resting(base, npnets.values()):
            about["fid"] = fid_of(evaluation.rows, options.out, inception.to(base.device), reference, base.device)
        about["fid_reference"] = f"{options.fid.name}, {len(reference)} pictures"

    from trainer.evaluation.results import summarise
    from trainer.report.report import write_report

    write_report(options.out, summarise(evaluation.rows, about))
    log.info("%s", options.out / "report.html")
    return code


def name_npnets(files: Sequence[str]) -> dict[str, Path]:
    """``FILE`` or ``NAME=FILE`` → name → file.

    Raises:
        InputError: for a name that is no folder's name, or one that comes twice.
    """
    named = {}
    for each in files:
        name, equals, path = each.partition("=")
        if not equals or Path(each).exists():
            name, path = Path(each).stem, each
        if name in named:
            raise InputError(f"Two nets are named {name}: name them apart, --npnet one={named[name]} two={path}.")
        if not name or name in (".", "..") or name != Path(name).name or "\\" in name or not name.isprintable():
            raise InputError(f"The net's name {name!r} cannot be a folder's name: use letters, digits, dots, - and _.")
        named[name] = Path(path)
    return named


def find_scorers(names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """(kind → file or folder, what is missing) of preference models as :data:`trainer.scorers.HELP` names them. A
    warning says what is missing while there is time to get it.

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


def fid_of(
    rows: Sequence[dict], out: Path, inception: torch.nn.Module, reference: Sequence[Path], device: torch.device
) -> dict[str, dict[str, float]]:
    """Setting → method → FID against the reference."""
    images: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        images.setdefault((row["setting"], row["method"]), {})[row["image"]] = None
    expected = inception_features(inception, reference, device, "FID, reference")
    fid: dict[str, dict[str, float]] = {}
    for (setting, method), paths in images.items():
        if len(paths) > 1:
            features = inception_features(inception, [out / path for path in paths], device, f"FID, {method}")
            fid.setdefault(setting, {})[method] = frechet_distance(features, expected)
    return fid


def evaluate(
    base: Base,
    npnets: Mapping[str, GoldenNet],
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
    dataset: Path | None = None,
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
        dataset: noise pairs of the same kind of base model, for the diagnostics.
        about: entries to add to what the report says of the run.

    Raises:
        InputError: for settings, nets or prompts that cannot be used, and for a folder that holds another run.
    """
    chosen = choose_methods(methods, npnets, redenoising, repaint_rounds)
    check_methods(chosen, base, settings, redenoising)
    draws = draw(prompts, seeds, seeds_per_prompt)
    shots = every_shot(draws, settings, chosen)
    claim(out, worker, facts(base, scorers, chosen, redenoising, repaint_rounds))
    number = {row.prompt: i for i, row in enumerate(prompts)}
    mine = [each for each in draws if number[each.prompt] % worker[1] == worker[0]]
    scores, cost = (out / f"{name}{suffix(worker)}.jsonl" for name in ("scores", "cost"))
    for path in (scores, cost):
        mend_lines(path)

    if worker[0] == 0 and npnets:
        write_json(out / "diagnostics.json", diagnose(base, npnets, draws, settings[0], dataset))
    make_images(base, mine, settings, chosen, out, batch=batch, cost=cost)
    known = {(row["image"], row["metric"]): row["score"] for row in read_lines(out, "scores")}
    missing: dict[str, str] = {}  # kind: why
    with resting(base, npnets.values()):
        chunks = batches(mine, settings, chosen, batch)
        for each in scorers:
            if not all(is_scored(each.kind, chunk, known) for chunk in chunks):
                missing |= score_with(each, chunks, out, scores, known)
    known |= {(row["image"], row["metric"]): row["score"] for row in read_lines(out, "scores")}  # by other workers
    diagnostics = out / "diagnostics.json"
    metrics = [each.kind for each in scorers if each.kind not in missing]
    wanted = [(shot, metric) for shot in shots for metric in metrics]
    rows = [shot.row(metric, known[shot.image, metric]) for shot, metric in wanted if (shot.image, metric) in known]
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
            "cost": cost_per_image(read_lines(out, "cost")),
            "diagnostics": json.loads(diagnostics.read_text(encoding="utf-8")) if diagnostics.exists() else {},
            "missing": [*missing.values(), *([NO_GPU] if npnets and base.device.type != "cuda" else ())],
        }
        | dict(about or {}),
        len(wanted) - len(rows),
        list(missing.values()),
    )


def score_with(
    each: Scorer | LaterScorer, chunks: Sequence[Sequence[Shot]], out: Path, scores: Path, known: dict
) -> dict[str, str]:
    """Score with one preference model. Returns {} or, if it cannot be loaded, {kind: why}: the others still run."""
    if isinstance(each, Scorer):
        score_images(each, chunks, out, scores, known)
        return {}
    try:
        scorer = each.load()
    except InputError as error:
        log.warning("%s", error)
        return {each.kind: str(error)}
    score_images(scorer, chunks, out, scores, known)
    scorer.model.to("cpu")
    free(each.device)
    return {}


@contextmanager
def resting(base: Base, npnets: Iterable[GoldenNet]) -> Iterator[None]:
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
        **{f"net {method.name}": method.weights[:16] for method in methods if method.npnet and not method.wrong_prompt},
        **({"inversion": str(redenoising)} if "inversion" in names else {}),
        **({"repaint rounds": str(repaint_rounds)} if "repaint" in names else {}),
        **{f"weights of {each.kind}": ends_hash(each.path)[:16] for each in scorers if isinstance(each, LaterScorer)},
    }


def ends_hash(path: Path) -> str:
    """SHA-256 over size, beginning and end of a file, or of all files in a folder: enough to tell weights apart."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        size = file.stat().st_size
        digest.update(str(size).encode())
        with file.open("rb") as content:
            digest.update(content.read(ENDS))
            content.seek(max(0, size - ENDS))
            digest.update(content.read())
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
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
