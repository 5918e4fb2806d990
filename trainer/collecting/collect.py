"""``npnet collect``: prompts → a noise prompt dataset (Stage I of the paper, Algorithm 1)."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.npd import Manifest, NPDWriter, PairKey, read_manifest
from npnet_core.preference import Scorer
from npnet_core.redenoise import INVERSIONS_HELP, check_levels
from npnet_core.selection import keep_pair
from trainer import bases
from trainer.bases import PRESETS, SAMPLERS, SPACINGS, Base, Prompts, Schedule
from trainer.collecting.redenoising import Redenoising
from trainer.collecting.scorers import HELP as SCORERS
from trainer.collecting.scorers import check_scorers, load_scorers
from trainer.commands.options import option, required, save_config
from trainer.data.images import image_stem, write_image
from trainer.data.prompts import read_prompts
from trainer.distributed import find_device

log = logging.getLogger(__name__)

PAIRS_PER_PART = 64
PURE_NOISE = 4.8973451890853435e-08  # the ᾱ that ComfyUI gives to ᾱ = 0, so that its sigma is a number (4519)
COMPARED = ("base_fingerprint", "precision", "sampler", "steps", "spacing", "scorers")  # of what a manifest records


@dataclass(frozen=True)
class Options:
    """Make pairs of noises for prompts: a source, and what re-denoising makes of it, both scored by their images.

    npnet collect --base models/sdxl-base --prompts prompts.txt --out datasets/sdxl
    npnet collect --base models/sdxl-base --prompts prompts.txt --out datasets/sdxl --worker 0/4
    torchrun --nproc-per-node 4 -m trainer collect --config collect.toml

    Stopped at any moment and started again with the same command it goes on where it was. Every pair is kept, with its
    scores: `npnet fit` selects.
    """

    base: str = required("diffusers folder, single file or hub id of the base model")
    prompts: Path = required("txt, csv, tsv, json, jsonl or parquet file")
    out: Path = required("the dataset's folder")
    column: str | None = option(None, "of the prompts (default: prompt, prompts or caption)")
    seeds: tuple[int, ...] = option((0, 1024), "first and last of the seeds that are drawn for each prompt")
    seeds_per_prompt: int = option(1, "how many are drawn, the same for a prompt every time")
    scorer: tuple[str, ...] = option(("hpsv2",), SCORERS)

    preset: Literal["sdxl", "dreamshaper-xl-turbo", "hunyuan-dit"] = option("sdxl", "the paper's settings")
    sampler: str | None = option(None, f"one of {', '.join(SAMPLERS)} (default: the preset's)")
    steps: int | None = option(None, "of the schedule (default: the preset's)")
    spacing: str | None = option(None, f"of the steps, one of {', '.join(SPACINGS)} (default: the base model's own)")
    cfg: float | None = option(None, "guidance of the denoising step and of the images (default: the preset's)")
    inversion_cfg: float | None = option(None, "guidance of the inversion step (default: the preset's)")
    rounds: int = option(1, "how often re-denoising is repeated")
    inversion: Literal["exact", "released", "fixed-point"] = option("exact", INVERSIONS_HELP)
    depth: int = option(1, "steps taken down and back; more than the paper's one is ours")
    height: int | None = option(None, "of the images in pixels (default: the base model's own)")
    width: int | None = option(None, "of the images in pixels (default: the base model's own)")

    batch: int = option(4, "pairs at once; each is two images")
    worker: str | None = option(None, "I/N: make part I of N, counted from 0 (torchrun says it by itself)")
    limit: int | None = option(None, "make only the first so many pairs, over all workers")
    save_images: bool = option(False, "keep both images of every pair in OUT/images")
    dry_run: bool = option(False, "make two batches, keep nothing, say how long all will take and how large it will be")
    device: str | None = option(None, "cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    precision: Literal["fp32", "fp16", "bf16"] | None = option(None, "of the base model (default: fp16 on a GPU)")
    base_config: str | None = option(None, "for a single-file base model: a diffusers folder or hub id of its kind")
    lora: Path | None = option(None, "a LoRA to add to the base model")

    def __post_init__(self) -> None:
        if len(self.seeds) != 2 or not 0 < self.seeds_per_prompt <= len(seed_range(self.seeds)):
            raise InputError(
                f"{self.seeds_per_prompt} seeds per prompt from --seeds {' '.join(map(str, self.seeds))} came: give "
                "the first and the last seed, and ask for no more than lie between them."
            )
        for name in ("batch", "limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)} came: give at least 1.")


@dataclass(frozen=True)
class Recipe(Redenoising):
    """How every pair of a run is made: re-denoised, and sampled at the guidance of its way down.

    Args:
        schedule: its first levels are re-denoised between, and both images are sampled on it.
        height, width: of the images in pixels; None for the base model's own.
    """

    schedule: Schedule = Schedule("ddim", 10)
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Pairs:
    """One batch.

    Args:
        source, target: noises [B, C, h, w].
        images: [B, H, W, 3] in 0..1 of both; None if nobody needed them.
        scores: scorer → raw scores [B] of both.
    """

    source: Tensor
    target: Tensor
    images: tuple[Tensor, Tensor] | None
    scores: dict[str, tuple[Tensor, Tensor]]


def run(options: Options) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: finished pairs are written
    worker, workers = this_worker(options.worker)
    recipe = recipe_from(options)
    prompts = read_prompts(options.prompts, options.column)
    check_scorers(options.scorer)
    base = bases.load_base(
        options.base,
        config=options.base_config,
        device=find_device(options.device),
        precision=options.precision,
        lora=options.lora,
    )
    shape = bases.latent_shape(base, recipe.height, recipe.width)
    keys = pair_keys(prompts, seed_range(options.seeds), options.seeds_per_prompt, shape)[: options.limit]
    keys = share_of(keys, worker, workers)
    scorers = load_scorers(options.scorer, base)
    settings = manifest(base, recipe, [scorer.kind for scorer in scorers])
    try:
        if options.dry_run:
            print(estimate(base, scorers, recipe, keys, batch=options.batch, images=options.save_images))
            return
        with open_dataset(options.out, settings, worker=f"{worker}of{workers}") as writer:
            save_config(resolved(options, recipe, base), options.out / f"collect-{worker}of{workers}.toml")
            images = options.out / "images" if options.save_images else None
            collect(base, scorers, recipe, keys, writer, batch=options.batch, images=images)
        log.info("%d pairs are in %s.", len(keys), options.out)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"The memory of {base.device} does not hold {options.batch} pairs at once: use a smaller --batch."
        ) from error


# -- what a run makes -------------------------------------------------------------------------------------------------


def this_worker(worker: str | None) -> tuple[int, int]:
    """(i, n): from ``--worker i/n``, else as torchrun says, else the only one.

    Raises:
        InputError: if it is not i/n with 0 ≤ i < n.
    """
    if worker is None:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    number, _, count = worker.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InputError(f"--worker {worker} came: give I/N with I from 0 to N - 1, such as 0/4.")
    return int(number), int(count)


def seed_range(seeds: Sequence[int]) -> range:
    """First and last seed → all of them."""
    return range(seeds[0], seeds[-1] + 1)


def recipe_from(options: Options) -> Recipe:
    """The preset, and over it what was asked for.

    Raises:
        InputError: for settings that make no schedule.
    """
    preset = PRESETS[options.preset]
    schedule = {"sampler": options.sampler, "steps": options.steps, "spacing": options.spacing}
    return Recipe(
        schedule=dataclasses.replace(preset.schedule, **{k: v for k, v in schedule.items() if v is not None}),
        cfg=preset.cfg if options.cfg is None else options.cfg,
        inversion_cfg=preset.inversion_cfg if options.inversion_cfg is None else options.inversion_cfg,
        rounds=options.rounds,
        inversion=options.inversion,
        depth=options.depth,
        height=options.height,
        width=options.width,
    )


def resolved(options: Options, recipe: Recipe, base: Base) -> Options:
    """The options with everything said that the preset and the base model had left open."""
    _, height, width = bases.latent_shape(base, recipe.height, recipe.width)
    return dataclasses.replace(
        options,
        **dataclasses.asdict(recipe.schedule),
        cfg=recipe.cfg,
        inversion_cfg=recipe.inversion_cfg,
        height=height * base.pixels,
        width=width * base.pixels,
    )


def pair_keys(prompts: Sequence[str], seeds: range, count: int, shape: tuple[int, int, int]) -> list[PairKey]:
    """Every pair of a dataset: ``count`` seeds for each prompt, those of one prompt side by side."""
    return [PairKey(prompt, seed, shape) for prompt in prompts for seed in draw_seeds(prompt, seeds, count)]


def draw_seeds(prompt: str, seeds: range, count: int) -> list[int]:
    """``count`` different seeds that follow from the prompt alone, uniform; asking for more keeps those there were."""
    generator = random.Random(prompt)  # the two functions whose numbers Python promises to keep: seed() and random()
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[seeds[int(generator.random() * len(seeds))]] = None
    return list(drawn)


def share_of(keys: Sequence[PairKey], worker: int, workers: int) -> list[PairKey]:
    """The pairs of every n-th prompt, so that no two workers encode the same one."""
    by_prompt = itertools.groupby(keys, key=lambda key: key.prompt)
    return [key for i, (_, group) in enumerate(by_prompt) if i % workers == worker for key in group]


def batches(keys: Sequence[PairKey], size: int) -> Iterator[list[PairKey]]:
    """At most ``size`` neighbours at a time. A prompt is split between batches only if one cannot hold it, and then
    shares none with another: so the numbers of a batch do not depend on which batches this process has made before.
    """
    batch: list[PairKey] = []
    for _, group in itertools.groupby(keys, key=lambda key: key.prompt):
        pairs = list(group)
        if batch and len(batch) + len(pairs) > size:
            yield batch
            batch = []
        if len(pairs) > size:
            yield from (pairs[i : i + size] for i in range(0, len(pairs), size))
        else:
            batch += pairs
    if batch:
        yield batch


def manifest(base: Base, recipe: Recipe, scorers: Sequence[str]) -> Manifest:
    """What all pairs of a dataset have in common.

    Args:
        scorers: their kinds.

    Raises:
        InputError: for a schedule that cannot be re-denoised on.
    """
    levels = bases.levels(base, recipe.schedule)
    check_levels(levels, recipe.inversion, recipe.depth)
    levels = levels[: recipe.depth + 1]
    alphas = [max(level.alpha, PURE_NOISE**0.5) for level in levels]
    return Manifest(
        base_family=base.family,
        sigmas=tuple(level.sigma / alpha for level, alpha in zip(levels, alphas, strict=True)),
        cfg=recipe.cfg,
        inversion_cfg=recipe.inversion_cfg,
        inversion=recipe.inversion,
        rounds=recipe.rounds,
        recorded={
            "base_model": base.source,
            "base_fingerprint": bases.fingerprint(base)[:16],
            "precision": str(base.dtype).removeprefix("torch."),
            **dataclasses.asdict(recipe.schedule),
            "scorers": list(scorers),
            "versions": {name: version(name) for name in ("torch", "diffusers")},
        },
    )


def open_dataset(folder: Path, settings: Manifest, worker: str) -> NPDWriter:
    """A writer for a new dataset, or for one that was begun with these very settings.

    Raises:
        InputError: as :class:`npnet_core.npd.NPDWriter`; if images were made or scored differently (it says how).
    """
    writer = NPDWriter(folder, settings, worker=worker, pairs_per_part=PAIRS_PER_PART)
    ours, theirs = settings.recorded, read_manifest(folder).recorded
    differing = [name for name in COMPARED if theirs.get(name) != ours[name]]
    if differing:
        named = "; ".join(f"{name} {theirs.get(name)}, not {ours[name]}" for name in differing)
        raise InputError(f"{folder} already holds another run ({named}): use its settings or another folder.")
    return writer


# -- making it --------------------------------------------------------------------------------------------------------


def collect(
    base: Base,
    scorers: Sequence[Scorer],
    recipe: Recipe,
    keys: Sequence[PairKey],
    writer: NPDWriter,
    *,
    batch: int = 4,
    images: Path | None = None,
) -> None:
    """Make the pairs that are not there yet and write them, with a progress bar.

    Batches are the same whatever was there before, so a run that was stopped ends with the numbers of one that was not.

    Args:
        keys: the pairs, of one shape, those of one prompt side by side.
        batch: pairs at once.
        images: a folder for the images of all pairs, or None.
    """
    missing = [chunk for chunk in batches(keys, batch) if not all(key in writer for key in chunk)]
    kept = scored = 0
    with tqdm(
        total=len(keys),
        initial=len(keys) - sum(map(len, missing)),
        unit="pair",
        smoothing=0.1,
        position=int(os.environ.get("LOCAL_RANK", 0)),
    ) as progress:
        for chunk, prompts in encoded(base, missing):
            pairs = make_pairs(base, scorers, recipe, chunk, prompts, with_images=images is not None)
            for i, key in enumerate(chunk):
                scores = {kind: (source[i].item(), target[i].item()) for kind, (source, target) in pairs.scores.items()}
                if images is not None:
                    save_images(images, key, [side[i] for side in pairs.images], scores)
                writer.add(pairs.source[i], pairs.target[i], prompt=key.prompt, seed=key.seed, scores=scores)
            if pairs.scores:
                agreed = [keep_pair(source, target, 0.0) for source, target in pairs.scores.values()]
                kept, scored = kept + int(torch.stack(agreed).all(0).sum()), scored + len(chunk)
                progress.set_postfix_str(f"{kept / scored:.0%} kept at margin 0", refresh=False)
            progress.update(len(chunk))


def encoded(base: Base, chunks: Sequence[Sequence[PairKey]]) -> Iterator[tuple[Sequence[PairKey], Prompts]]:
    """Each chunk of :func:`batches` with its prompts; a distinct prompt is encoded once, and so is the empty one."""
    texts, prompts, uncond = [], None, None
    for chunk in chunks:
        distinct = list(dict.fromkeys(key.prompt for key in chunk))
        if distinct != texts:
            texts, prompts = distinct, bases.encode(base, distinct, uncond=uncond)
            uncond = prompts.uncond
        yield chunk, prompts[[texts.index(key.prompt) for key in chunk]]


def make_pairs(
    base: Base,
    scorers: Sequence[Scorer],
    recipe: Recipe,
    keys: Sequence[PairKey],
    prompts: Prompts,
    *,
    with_images: bool = False,
) -> Pairs:
    """One batch of Algorithm 1: both noises, and if there are scorers or ``with_images``, both images and their scores.

    At n steps a pair costs 2n + ½ guided evaluations, because the first denoising step serves both the pair and the
    source's image, and every further round 1½ more; 1½ per round without images. Every step of depth costs as much as a
    round, and ½ more where fixed points are sought.
    """
    seeds = [key.seed for key in keys]
    source = bases.initial_noise(base, seeds, recipe.height, recipe.width).to(base.device)
    target, first_denoised = recipe.redenoised(base, prompts, source, recipe.schedule)
    if not scorers and not with_images:
        return Pairs(source, target, None, {})
    both = [*range(len(keys)), *range(len(keys))]
    latents = bases.sample(
        base,
        torch.cat([source, target]),
        prompts[both],
        recipe.schedule,
        recipe.cfg,
        seeds=seeds + seeds,
        first_denoised=first_denoised if bases.shares_first(base, recipe.schedule) else None,
    )
    images = bases.decode(base, latents, batch=len(latents))
    texts = [keys[i].prompt for i in both]
    scores = {scorer.kind: scorer.score(images, texts).chunk(2) for scorer in scorers}
    return Pairs(source, target, images.chunk(2), scores)


def save_images(folder: Path, key: PairKey, images: Sequence[Tensor], scores: dict[str, tuple[float, float]]) -> None:
    """Source's and target's image [H, W, 3] as PNGs; what made them is in their text chunk ``npnet``."""
    for side, (name, image) in enumerate(zip(("source", "target"), images, strict=True)):
        about = {"prompt": key.prompt, "seed": key.seed, "noise": name}
        about["scores"] = {kind: pair[side] for kind, pair in scores.items()}
        write_image(folder / f"{image_stem(key.prompt, key.seed)}-{name}.png", image, about)


def estimate(
    base: Base, scorers: Sequence[Scorer], recipe: Recipe, keys: Sequence[PairKey], *, batch: int, images: bool
) -> str:
    """Time and disk for all pairs, from two batches that are made in a temporary folder; the first warms up."""
    if not keys:
        return "0 pairs: there are more workers than prompts"
    settings = manifest(base, recipe, [scorer.kind for scorer in scorers])
    with tempfile.TemporaryDirectory() as folder:
        for number, chunk in enumerate(itertools.islice(batches(keys, batch), 2)):
            out = Path(folder, str(number))
            start = time.perf_counter()
            with NPDWriter(out, settings, worker="dry-run") as writer:
                collect(base, scorers, recipe, chunk, writer, batch=batch, images=out / "images" if images else None)
            seconds = (time.perf_counter() - start) / len(chunk)
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / len(chunk)
    return (
        f"{len(keys)} pairs: {tqdm.format_interval(seconds * len(keys))} at {1 / seconds:.3g} pairs per second, "
        f"{size * len(keys) / 1e9:.3g} GB"
    )
