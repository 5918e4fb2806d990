"""Pictures are made in batches; those that are on the disk stay."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base, Prompts
from trainer.data.images import write_image
from trainer.data.jsonl import append_jsonl
from trainer.distributed import progress_bar
from trainer.evaluation.cost import STAGES, Stopwatch, counted_rows
from trainer.evaluation.draws import Draw
from trainer.evaluation.methods import Method
from trainer.evaluation.pictures import batches
from trainer.evaluation.sampling_settings import Setting

THREADS = 2  # that compress PNGs while a network works


def make_images(
    base: Base,
    draws: Sequence[Draw],
    settings: Sequence[Setting],
    methods: Sequence[Method],
    out: Path,
    *,
    batch: int = 4,
    cost: Path | None = None,
    judges: Mapping[str, Scorer] | None = None,
) -> None:
    """Make the images that are not there yet, with a progress bar.

    Batches are the same whatever was there before, so a run that was stopped ends with the images of one that was not.
    Every method is sampled by itself, from the first step on, so that what it costs can be told.

    Args:
        batch: images at once.
        cost: a file of lines that gets, per batch, what :func:`trainer.evaluation.cost.cost_per_image` reads, or None.
        judges: kind → preference model, of the methods that choose among noises.
    """
    work = [
        chunk
        for chunk in batches(draws, settings, methods, batch)
        if not all((out / picture.image).exists() for picture in chunk)
    ]
    total = len(draws) * len(settings) * len(methods)
    missing = sum(map(len, work))
    there = [method.npnet for method in methods if method.npnet is not None]
    nets = {id(npnet): weight_bytes(npnet) for npnet in there if next(npnet.parameters()).device == base.device}
    metadata = {"base_model": base.source}
    warm, uncond, pending = set(), None, deque()
    with (
        ThreadPoolExecutor(THREADS) as writers,
        progress_bar(total, missing, "image", "images") as progress,
    ):
        for these, group in itertools.groupby(work, key=lambda chunk: [picture.draw for picture in chunk]):
            todo = list(group)
            texts = {each.prompt: None for each in these}
            if any(chunk[0].method.wrong_prompt for chunk in todo):
                texts |= {each.other: None for each in these}
            encoded = bases.encode(base, list(texts), uncond=uncond)
            uncond = encoded.uncond
            rows = {text: row for row, text in enumerate(texts)}
            for chunk in todo:
                setting, method = chunk[0].setting, chunk[0].method
                prompts = encoded[[rows[each.prompt] for each in these]]
                noise_prompts = encoded[[rows[each.other] for each in these]] if method.wrong_prompt else prompts
                images, measured = make_batch(base, these, prompts, noise_prompts, setting, method, judges=judges)
                for picture, image in zip(chunk, images, strict=True):
                    if not (out / picture.image).exists():
                        pending.append(
                            writers.submit(write_image, out / picture.image, image, metadata | picture.metadata())
                        )
                while len(pending) > 2 * batch:
                    pending.popleft().result()
                if cost is not None:
                    if measured["peak_bytes"] is not None:
                        measured["peak_bytes"] -= sum(nets.values()) - nets.get(id(method.npnet), 0)
                    measured["warm_up"] = (setting, method.name) not in warm
                    append_jsonl(cost, [measured])
                warm.add((setting, method.name))
                progress.update(len(chunk))
        for future in pending:
            future.result()


def make_batch(
    base: Base,
    draws: Sequence[Draw],
    prompts: Prompts,
    noise_prompts: Prompts,
    setting: Setting,
    method: Method,
    control: Tensor | None = None,
    judges: Mapping[str, Scorer] | None = None,
) -> tuple[Tensor, dict]:
    """Images [B, H, W, 3] of B draws, and what they cost as :func:`trainer.evaluation.cost.cost_per_image` reads it.

    Args:
        prompts: what the images are made of.
        noise_prompts: what the method is told.
        control: a ControlNet's picture [1, 3, H, W] in 0..1.
        judges: as in :func:`make_images`.
    """
    schedule, cfg = method.baseline.schedule(setting), method.baseline.guidance(base, setting)
    watch, seconds = Stopwatch(base.device), dict.fromkeys(STAGES, 0.0)
    candidates, scores = [], []
    networks = [each.network for each in (base, base.sibling) if each is not None]
    with counted_rows(*networks) as rows:
        for seeds in zip(*(method.baseline.seeds(each.prompt, each.seed) for each in draws), strict=True):
            noise = bases.initial_noise(base, seeds, setting.height, setting.width)
            watch.lap()
            start = method.start(base, noise_prompts, noise, setting)
            seconds["noise_seconds"] += watch.lap()
            latents = bases.sample(base, start, prompts, schedule, cfg, seeds=seeds, control=control)
            seconds["sample_seconds"] += watch.lap()
            candidates.append(bases.decode(base, latents, batch=len(latents)))
            seconds["decode_seconds"] += watch.lap()
            if method.baseline.judge is not None:
                saved = candidates[-1].mul(255).round() / 255  # scores are of pictures as they are on the disk
                scores.append(judges[method.baseline.judge].score(saved, [each.prompt for each in draws]))
                seconds["choose_seconds"] += watch.lap()
    images = candidates[0]
    if scores:
        images = torch.stack(candidates)[torch.stack(scores).argmax(0), torch.arange(len(draws))]
    measured = {
        "setting": setting.name,
        "method": method.name,
        "images": len(draws),
        "rows": sum(rows),
        **seconds,
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
