"""How good the shapes world's models are: pictures, autoencoder and detector, per guidance scale."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from trainer import bases
from trainer.shapes import WEIGHTS, world
from trainer.shapes.pipeline_stages import RECIPE
from trainer.shapes.scorer import Detector, Verdict, judge, load_detector
from trainer.shapes.train import reconstruct

GUIDANCE = (1.0, 3.0, 5.5, 7.5)


@torch.no_grad()
def assess(weights: Path = WEIGHTS, count: int = 300, seed: int = 1_000_000) -> str:
    """Two tables in Markdown: the models on real pictures, and the pictures that the base model makes.

    Args:
        weights: the folder that :func:`trainer.shapes.train.retrain` wrote.
        count: pictures per row; a share of 50 % is then sure to 5.7 percentage points at 300.
        seed: of the first picture; captions come from the reporting part of :func:`world.split_captions`.
    """
    base, detector = bases.load_base(weights / "base"), load_detector(weights / "detector.safetensors")
    generator = torch.Generator().manual_seed(seed)
    captions = world.split_captions()[1]
    captions = [captions[i % len(captions)] for i in range(count)]
    scenes = [world.Scene.from_caption(caption) for caption in captions]

    lines = [
        "| real pictures | autoencoder's error (rmse) | detector right | after the autoencoder |",
        "|---|---|---|---|",
    ]
    for size in (world.SIZE, world.WIDE):
        images = world.draw(scenes, generator, size).images
        decoded = torch.cat([reconstruct(base.pipe.vae, chunk) for chunk in images.split(100)])
        right = [look(detector, pictures, scenes).all_right.mean() for pictures in (images, decoded)]
        rmse = (decoded - images).square().mean().sqrt()
        lines.append(f"| {size[0]}x{size[1]} | {rmse:.3f} | {right[0]:.1%} | {right[1]:.1%} |")

    lines += [
        "",
        "| pictures made | guidance | objects | attributes | relation | all facts right |",
        "|---|---|---|---|---|---|",
    ]
    rows = list(itertools.product((world.SIZE, world.WIDE), GUIDANCE))
    for size, cfg in tqdm(rows, desc="pictures", unit="row"):
        noise = bases.initial_noise(base, range(seed, seed + count), *size)
        verdict = look(detector, pictures_of(base, captions, noise, cfg), scenes)
        shares = (verdict.objects, verdict.attributes, verdict.relation, verdict.all_right)
        lines.append(f"| {size[0]}x{size[1]} | {cfg:g} | " + " | ".join(f"{s.mean():.1%}" for s in shares) + " |")
    return "\n".join(lines)


def look(detector: Detector, images: Tensor, scenes: Sequence[world.Scene]) -> Verdict:
    return judge(detector(images), scenes)


def pictures_of(base: bases.Base, captions: Sequence[str], noise: Tensor, cfg: float, batch: int = 50) -> Tensor:
    """[N, H, W, 3], ten DDIM steps."""
    images = []
    for i in range(0, len(noise), batch):
        prompts = bases.encode(base, captions[i : i + batch])
        latents = bases.sample(base, noise[i : i + batch], prompts, RECIPE.schedule, cfg)
        images.append(bases.decode(base, latents, batch=batch))
    return torch.cat(images)
