"""``npnet collect``: prompts → a noise prompt dataset (Stage I of the paper, Algorithm 1)."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from npnet_core.preference import KINDS, Scorer, load_scorer
from npnet_core.selection import keep_pair
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.npd import Manifest, NPDWriter, PairKey
from npnet_core.redenoise import INVERSIONS, redenoise

from . import bases
from .bases import PRESETS, SAMPLERS, SPACINGS, Base, Prompts, Schedule
from .options import option, required, save_config
from .prompts import read_prompts

PART = 64  # pairs per file, and the most that a kill can lose
ROW = 500  # bytes of one pair's line


@dataclass(frozen=True)
class Options:
    """Make pairs of noises for prompts: the source, and what re-denoising makes of it, both scored by their images.

    npnet collect --preset sdxl --base models/sdxl-base --prompts prompts.txt --out datasets/sdxl
    npnet collect --preset sdxl --base models/sdxl-base --prompts prompts.txt --out datasets/sdxl --worker 0/4
    torchrun --nproc-per-node 4 -m trainer collect --config collect.toml

    Stopped at any moment and started again with the same command it goes on where it was.
    """

    base: str = required("diffusers folder, single file or hub id of the base model")
    prompts: Path = required("txt, csv, tsv, json, jsonl or parquet file")
    out: Path = required("the dataset's folder")
    column: str | None = option(None, "the prompt file's column (default: prompt)")
    preset: Literal["sdxl", "dreamshaper-xl-turbo", "hunyuan-dit"] = option("sdxl", "the paper's settings")
    first_seed: int = option(0, "seeds are drawn from first-seed …")
    last_seed: int = option(1024, "… to last-seed, the same for a prompt every time")
    seeds_per_prompt: int = option(1, "pairs per prompt")
    scorer: tuple[str, ...] = option(
        ("hpsv2",), f"KIND or KIND=FILE, several at once, or none; kinds: {', '.join(KINDS)}"
    )
    steps: int | None = option(None, "steps of the schedule (default: the preset's)")
    cfg: float | None = option(None, "guidance of denoising step and images (default: the preset's)")
    inversion_cfg: float | None = option(None, "guidance of the inversion step (default: the preset's)")
    rounds: int = option(1, "how often the target is re-denoised again")
    inversion: Literal["exact", "released"] = option(INVERSIONS[0], "the paper's formula, or its authors' code's")
    sampler: str | None = option(None, f"one of {', '.join(SAMPLERS)} (default: the preset's)")
    spacing: str | None = option(None, f"one of {', '.join(SPACINGS)} (default: the model's own)")
    height: int | None = option(None, "pixels (default: the model's own size)")
    width: int | None = option(None, "pixels (default: the model's own size)")
    batch: int = option(4, "pairs at once; two images each")
    worker: str | None = option(None, "I/N: this process makes part I of N, from 0 (torchrun sets it by itself)")
    device: str | None = option(None, "cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    precision: Literal["fp32", "fp16", "bf16"] | None = option(None, "of the base model (default: fp16 on a GPU)")
    base_config: str | None = option(None, "for a single-file base model: a diffusers folder or hub id of its kind")
    limit: int | None = option(None, "stop after so many pairs")
    save_images: bool = option(False, "keep both images of every pair in OUT/images")
    dry_run: bool = option(False, "make one batch, write nothing, say how long it will take and how large it will be")


@dataclass(frozen=True)
class Recipe:
    """How every pair of a run is made."""

    schedule: Schedule
    cfg: float
    inversion_cfg: float
    rounds: int
    inversion: str
    height: int
    width: int


@dataclass(frozen=True)
class Pairs:
    """One batch: source and target noises [B, C, h, w], their images [B, H, W, 3] and scores; None without scorers."""

    source: Tensor
    target: Tensor
    images: tuple[Tensor, Tensor] | None
    scores: dict[str, tuple[Tensor, Tensor]]


def run(options: Options) -> None:
    worker, workers = this_worker(options.worker)
    prompts = read_prompts(options.prompts, options.column)[worker::workers]
    base = bases.load_base(
        options.base,
        config=options.base_config,
        device=options.device or default_device(),
        precision=options.precision,
    )
    recipe = recipe_from(options, base)
    scorers = load_scorers(options.scorer, base.device)
    keys = pair_keys(prompts, options, bases.latent_shape(base, recipe.height, recipe.width))
    if options.dry_run:
        print(estimate(base, scorers, recipe, keys, options.batch))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is finished is written
    with NPDWriter(options.out, manifest(base, recipe), worker=f"{worker}of{workers}", pairs_per_part=PART) as writer:
        save_config(options, options.out / "collect.toml")
        images = options.out / "images" if options.save_images else None
        collect(base, scorers, recipe, keys, writer, batch=options.batch, images=images)


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


def default_device() -> str:
    """A GPU if there is one, under torchrun each process its own."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def recipe_from(options: Options, base: Base) -> Recipe:
    """The preset, and over it what was asked for.

    Raises:
        InputError: for settings that make no schedule.
    """
    preset = PRESETS[options.preset]
    return Recipe(
        schedule=Schedule(
            options.sampler or preset.schedule.sampler,
            preset.schedule.steps if options.steps is None else options.steps,
            options.spacing or preset.schedule.spacing,
        ),
        cfg=preset.cfg if options.cfg is None else options.cfg,
        inversion_cfg=preset.inversion_cfg if options.inversion_cfg is None else options.inversion_cfg,
        rounds=options.rounds,
        inversion=options.inversion,
        height=options.height or base.size,
        width=options.width or base.size,
    )


def load_scorers(names: Sequence[str], device: torch.device) -> list[Scorer]:
    """Preference models from ``KIND`` or ``KIND=FILE``; ``none`` is none.

    Raises:
        InputError: for an unknown kind, or as :func:`npnet_core.preference.load_scorer`.
    """
    if tuple(names) == ("none",):
        return []
    pairs = [name.partition("=") for name in names]
    return [load_scorer(kind, Path(path) if path else None, device) for kind, _, path in pairs]


def pair_keys(prompts: Sequence[str], options: Options, shape: tuple[int, int, int]) -> list[PairKey]:
    """Every pair of this worker. A prompt's seeds follow from the prompt alone, so no worker has to know another.

    Raises:
        InputError: for a seed range with fewer seeds than each prompt gets.
    """
    seeds = range(options.first_seed, options.last_seed + 1)
    if not 0 < options.seeds_per_prompt <= len(seeds):
        raise InputError(
            f"{options.seeds_per_prompt} seeds per prompt from {options.first_seed} to {options.last_seed} came: "
            "ask for at least one and no more than the range has."
        )
    keys = (
        PairKey(prompt, seed, shape)
        for prompt in prompts
        for seed in sorted(random.Random(prompt).sample(seeds, options.seeds_per_prompt))
    )
    return list(itertools.islice(keys, options.limit))


def manifest(base: Base, recipe: Recipe) -> Manifest:
    """What every pair of the dataset has in common."""
    first, second = bases.levels(base, recipe.schedule)[:2]
    return Manifest(
        base_family=base.family,
        sigmas=(first.sigma / first.alpha, second.sigma / second.alpha),
        cfg=recipe.cfg,
        inversion_cfg=recipe.inversion_cfg,
        inversion=recipe.inversion,
        rounds=recipe.rounds,
        recorded={
            "base_model": base.source,
            "base_fingerprint": bases.fingerprint(base),
            "sampler": recipe.schedule.sampler,
            "steps": recipe.schedule.steps,
            "spacing": recipe.schedule.spacing,
        },
    )


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

    Batches are always the same pairs, whatever was there before, so that a run that was stopped ends with the same
    numbers as one that was not.

    Args:
        keys: the pairs, of one shape; those of one prompt side by side, so that it is encoded once.
        batch: pairs at once.
        images: a folder for all images, or None.
    """
    kept = scored = 0
    prompts = PromptCache(base)
    with tqdm(total=len(keys), unit="pair", smoothing=0.1) as progress:
        for chunk in batches(keys, batch):
            if all(key in writer for key in chunk):
                progress.update(len(chunk))
                progress.initial += len(chunk)  # does not count for the speed
                continue
            pairs = make_pairs(base, scorers, recipe, chunk, prompts(chunk))
            for i, key in enumerate(chunk):
                scores = {kind: (s[i].item(), t[i].item()) for kind, (s, t) in pairs.scores.items()}
                writer.add(pairs.source[i], pairs.target[i], prompt=key.prompt, seed=key.seed, scores=scores)
                if images is not None:
                    save_images(images, key, pairs.images, i, scores)
            if pairs.scores:
                agreed = torch.stack([keep_pair(s, t, 0.0) for s, t in pairs.scores.values()]).all(0)
                kept, scored = kept + int(agreed.sum()), scored + len(chunk)
                progress.set_postfix_str(f"{kept / scored:.0%} kept at margin 0")
            progress.update(len(chunk))


def batches(keys: Sequence[PairKey], size: int) -> Iterator[Sequence[PairKey]]:
    return (keys[i : i + size] for i in range(0, len(keys), size))


class PromptCache:
    """Encodes each distinct prompt once; remembers no more than the last batch, where the next one may begin."""

    def __init__(self, base: Base):
        self.base, self.uncond, self.known = base, None, {}

    def __call__(self, keys: Sequence[PairKey]) -> Prompts:
        texts = list(dict.fromkeys(key.prompt for key in keys))
        if new := [text for text in texts if text not in self.known]:
            encoded = bases.encode(self.base, new, uncond=self.uncond)
            self.uncond = encoded.uncond
            self.known |= {text: encoded[i : i + 1] for i, text in enumerate(new)}
        self.known = {text: self.known[text] for text in texts}
        return bases.join([self.known[key.prompt] for key in keys])


def make_pairs(
    base: Base, scorers: Sequence[Scorer], recipe: Recipe, keys: Sequence[PairKey], prompts: Prompts
) -> Pairs:
    """One batch of Algorithm 1. At n steps it costs 2n + ½ guided evaluations per pair and 1½ more per further round,
    because the first denoising step serves both the pair and the source's image; without scorers 1½ per round.
    """
    seeds = [key.seed for key in keys]
    source = bases.initial_noise(base, seeds, recipe.height, recipe.width).to(base.device)
    target, first_denoised = redenoise(
        bases.denoiser(base, prompts),
        source,
        bases.levels(base, recipe.schedule)[:3],
        cfg=recipe.cfg,
        inversion_cfg=recipe.inversion_cfg,
        rounds=recipe.rounds,
        inversion=recipe.inversion,
    )
    if not scorers:
        return Pairs(source, target, None, {})
    latents = bases.sample(
        base,
        torch.cat([source, target]),
        prompts[[*range(len(keys)), *range(len(keys))]],
        recipe.schedule,
        recipe.cfg,
        seeds=seeds + seeds,
        first_denoised=first_denoised if bases.shares_first(base, recipe.schedule) else None,
    )
    images = bases.decode(base, latents, batch=len(latents))
    texts = [key.prompt for key in keys]
    scores = {scorer.kind: scorer.score(images, texts + texts).chunk(2) for scorer in scorers}
    return Pairs(source, target, images.chunk(2), scores)


def save_images(folder: Path, key: PairKey, images: tuple[Tensor, Tensor], i: int, scores: dict) -> None:
    """Two PNGs of one pair, with prompt, seed and scores in their metadata."""
    from PIL import Image, PngImagePlugin

    folder.mkdir(exist_ok=True)
    for place, (name, batch) in enumerate(zip(("source", "target"), images, strict=True)):
        info = PngImagePlugin.PngInfo()
        own_scores = {kind: values[place] for kind, values in scores.items()}
        info.add_itxt(
            "npnet", json.dumps({"prompt": key.prompt, "seed": key.seed, "noise": name, "scores": own_scores})
        )
        pixels = (batch[i] * 255).round().to(torch.uint8).numpy()
        stem = f"{zlib.crc32(key.prompt.encode()):08x}-{key.seed}"
        Image.fromarray(pixels).save(folder / f"{stem}-{name}.png", pnginfo=info)


def estimate(base: Base, scorers: Sequence[Scorer], recipe: Recipe, keys: Sequence[PairKey], batch: int) -> str:
    """Time and disk for all pairs, from one batch that is made and thrown away."""
    chunk = keys[:batch]
    prompts = PromptCache(base)(chunk)
    start = time.perf_counter()
    pairs = make_pairs(base, scorers, recipe, chunk, prompts)
    seconds = (time.perf_counter() - start) / len(chunk) * len(keys)
    size = 2 * pairs.source[0].numel() * 2 + ROW  # two noises in fp16
    return (
        f"{len(keys)} pairs: about {seconds / 3600:.1f} hours at {len(keys) / seconds:.2f} pairs per second, "
        f"{len(keys) * size / 1e9:.2f} GB without images"
    )
