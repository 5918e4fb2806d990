"""The images of a comparison: which there are, made in batches, scored in batches; what is on the disk stays."""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base, Prompts
from trainer.collecting.keys import draw_seeds
from trainer.data.batches import ahead
from trainer.data.images import image_stem, read_images, text_hash, write_image
from trainer.data.jsonl import append_lines
from trainer.data.prompts import PromptRow
from trainer.evaluation.cost import Stopwatch
from trainer.evaluation.methods import Method
from trainer.evaluation.settings import Setting

THREADS = 2  # that compress or read PNGs while a network works


class Draw(NamedTuple):
    """A prompt with a seed: what all methods are compared on."""

    prompt: str
    category: str | None
    seed: int
    other: str  # the prompt that wrong-prompt controls are told; "" in a set of one


@dataclass(frozen=True)
class Shot:
    """One image."""

    draw: Draw
    setting: Setting
    method: Method

    @property
    def image(self) -> str:
        """Its file, relative to the evaluation's folder."""
        stem = image_stem(self.draw.prompt, self.draw.seed)
        if self.method.wrong_prompt:  # which other prompt depends on the set, and sets grow
            stem += f"-{text_hash(self.draw.other)[:8]}"
        return f"images/{self.setting.name}/{self.method.name}/{stem}.png"

    def row(self, metric: str, score: float) -> dict:
        """A line of scores.jsonl."""
        return {
            "setting": self.setting.name,
            "method": self.method.name,
            "metric": metric,
            "prompt": self.draw.prompt,
            "category": self.draw.category,
            "seed": self.draw.seed,
            "score": score,
            "image": self.image,
        }

    def about(self) -> dict:
        """What is written into the PNG."""
        about = {"prompt": self.draw.prompt, "seed": self.draw.seed, "method": self.method.name}
        about |= {"noise": self.method.description}
        if self.method.weights is not None:
            about["net_sha256"] = self.method.weights
        if self.method.wrong_prompt:
            about["noise_prompt"] = self.draw.other
        return about | self.setting.to_dict()


def draw(prompts: Sequence[PromptRow], seeds: range, per_prompt: int) -> list[Draw]:
    """Every prompt with each of its seeds: all prompts with their first, then all with their second, and so on, so that
    asking for more seeds adds to the end.

    Controls are told the prompt that stands half a set further on, counted in a circle: neighbours in a set often are
    of one category and much alike.

    Raises:
        InputError: for no prompt, one twice, or more seeds than there are.
    """
    texts = [row.prompt for row in prompts]
    if not texts:
        raise InputError("No prompt came: give at least one.")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise InputError(f"The prompt {twice!r} came twice: give each once, and more seeds.")
    if not 1 <= per_prompt <= len(seeds):
        raise InputError(f"{per_prompt} seeds per prompt were asked for of {len(seeds)}: ask for 1 or more of those.")
    half = len(texts) // 2
    others = [*texts[half:], *texts[:half]] if half else [""]
    drawn = [draw_seeds(text, seeds, per_prompt) for text in texts]
    return [
        Draw(row.prompt, row.category, mine[k], other)
        for k in range(per_prompt)
        for row, mine, other in zip(prompts, drawn, others, strict=True)
    ]


def every_shot(draws: Sequence[Draw], settings: Sequence[Setting], methods: Sequence[Method]) -> list[Shot]:
    """Setting by setting, the methods of a draw side by side.

    Raises:
        InputError: for a control in a set of one prompt.
    """
    if any(method.wrong_prompt for method in methods) and any(d.other == "" for d in draws):
        raise InputError("A wrong-prompt control needs another prompt: give at least 2, or leave it out of --methods.")
    return [Shot(*each) for setting in settings for each in itertools.product(draws, [setting], methods)]


def batches(
    draws: Sequence[Draw], settings: Sequence[Setting], methods: Sequence[Method], size: int
) -> list[list[Shot]]:
    """All shots, ``size`` draws of one setting and method at a time; those of the same draws follow each other.

    Settings, methods and draws that come later leave whole batches as they were.
    """
    chunks = [draws[i : i + size] for i in range(0, len(draws), size)]
    return [
        [Shot(each, setting, method) for each in chunk]
        for chunk, setting, method in itertools.product(chunks, settings, methods)
    ]


def make_images(
    base: Base,
    draws: Sequence[Draw],
    settings: Sequence[Setting],
    methods: Sequence[Method],
    out: Path,
    *,
    batch: int = 4,
    cost: Path | None = None,
) -> None:
    """Make the images that are not there yet, with a progress bar.

    Batches are the same whatever was there before, so a run that was stopped ends with the images of one that was not.
    Every method is sampled by itself, from the first step on, so that what it costs can be told.

    Args:
        batch: images at once.
        cost: a file of lines that gets, per batch, what :func:`trainer.cost.cost_per_image` reads; None for nobody.
    """
    work = [
        chunk
        for chunk in batches(draws, settings, methods, batch)
        if not all((out / shot.image).exists() for shot in chunk)
    ]
    total = len(draws) * len(settings) * len(methods)
    missing = sum(map(len, work))
    there = [method.npnet for method in methods if method.npnet is not None]
    nets = {id(npnet): weight_bytes(npnet) for npnet in there if next(npnet.parameters()).device == base.device}
    about = {"base_model": base.source}
    warm, uncond, pending = set(), None, deque()
    with (
        ThreadPoolExecutor(THREADS) as writers,
        progress_bar(total, missing, "images") as progress,
    ):
        for these, group in itertools.groupby(work, key=lambda chunk: [shot.draw for shot in chunk]):
            todo = list(group)
            told = {each.prompt: None for each in these}
            if any(chunk[0].method.wrong_prompt for chunk in todo):
                told |= {each.other: None for each in these}
            encoded = bases.encode(base, list(told), uncond=uncond)
            uncond = encoded.uncond
            rows = {text: row for row, text in enumerate(told)}
            for chunk in todo:
                setting, method = chunk[0].setting, chunk[0].method
                prompts = encoded[[rows[each.prompt] for each in these]]
                noise_prompts = encoded[[rows[each.other] for each in these]] if method.wrong_prompt else prompts
                images, measured = make_batch(base, these, prompts, noise_prompts, setting, method)
                for shot, image in zip(chunk, images, strict=True):
                    if not (out / shot.image).exists():
                        pending.append(writers.submit(write_image, out / shot.image, image, about | shot.about()))
                while len(pending) > 2 * batch:
                    pending.popleft().result()
                if cost is not None:
                    if measured["peak_bytes"] is not None:
                        measured["peak_bytes"] -= sum(nets.values()) - nets.get(id(method.npnet), 0)
                    measured["warm_up"] = (setting, method.name) not in warm
                    append_lines(cost, [measured])
                warm.add((setting, method.name))
                progress.update(len(chunk))
        for future in pending:
            future.result()


def progress_bar(total: int, missing: int, what: str) -> tqdm:
    """One line for each process of torchrun."""
    line = int(os.environ.get("LOCAL_RANK", 0))
    return tqdm(total=total, initial=total - missing, desc=what, unit="image", smoothing=0.1, position=line)


def make_batch(
    base: Base,
    draws: Sequence[Draw],
    prompts: Prompts,
    noise_prompts: Prompts,
    setting: Setting,
    method: Method,
    control: Tensor | None = None,
) -> tuple[Tensor, dict]:
    """Images [B, H, W, 3] of B draws, and what they cost as :func:`trainer.cost.cost_per_image` reads it.

    Args:
        prompts: what the images are made of.
        noise_prompts: what the method is told.
        control: a ControlNet's picture [1, 3, H, W] in 0..1.
    """
    seeds = [each.seed for each in draws]
    noise = bases.initial_noise(base, seeds, setting.height, setting.width)
    watch = Stopwatch(base.device)
    start = method.start(base, noise_prompts, noise, setting)
    noise_seconds = watch.lap()
    latents = bases.sample(base, start, prompts, setting.schedule, setting.cfg, seeds=seeds, control=control)
    sample_seconds = watch.lap()
    images = bases.decode(base, latents, batch=len(latents))
    measured = {
        "setting": setting.name,
        "method": method.name,
        "images": len(draws),
        "noise_seconds": noise_seconds,
        "sample_seconds": sample_seconds,
        "decode_seconds": watch.lap(),
        "peak_bytes": watch.peak_bytes(),
        "device": device_name(base),
    }
    return images, measured


def device_name(base: Base) -> str:
    """As people know it, with the network's precision."""
    device = base.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, {str(base.dtype).removeprefix('torch.')}"


def weight_bytes(module) -> int:
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def score_images(
    scorer: Scorer,
    chunks: Sequence[Sequence[Shot]],
    out: Path,
    scores: Path,
    known: dict[tuple[str, str], float],
) -> None:
    """Score the images that have no score yet, read back from the disk, with a progress bar.

    Args:
        chunks: images to score at once, of one size each.
        scores: the file of lines to append to.
        known: (image, metric) → score of what there is; gets the new ones too.
    """
    missing = [chunk for chunk in chunks if not is_scored(scorer.kind, chunk, known)]
    total, left = (sum(map(len, some)) for some in (chunks, missing))
    with progress_bar(total, left, scorer.kind) as progress:
        for chunk, images in zip(missing, _read_ahead(out, missing), strict=True):
            values = scorer.score(images, [shot.draw.prompt for shot in chunk]).tolist()
            for shot, value in zip(chunk, values, strict=True):
                if not math.isfinite(value):
                    raise InputError(
                        f"{scorer.kind} scores {out / shot.image} with {value}: look at that image, and at the weights "
                        "of that preference model."
                    )
            new = [
                shot.row(scorer.kind, value)
                for shot, value in zip(chunk, values, strict=True)
                if (shot.image, scorer.kind) not in known
            ]
            append_lines(scores, new)
            known |= {(row["image"], row["metric"]): row["score"] for row in new}
            progress.update(len(chunk))


def is_scored(metric: str, shots: Sequence[Shot], known: dict[tuple[str, str], float]) -> bool:
    """Whether all of them have that score."""
    return all((shot.image, metric) in known for shot in shots)


def _read_ahead(out: Path, chunks: Sequence[Sequence[Shot]]) -> Iterator[Tensor]:
    return ahead(lambda chunk: read_images([out / shot.image for shot in chunk]), chunks, THREADS)
