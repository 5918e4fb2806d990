"""Draws the templates' cards: squares with pictures of the shapes world, the same seed before and after.

    npnet collect --base trainer/shapes/weights/base --prompts captions.txt --out deep --scorer none \\
        --inversion fixed-point --depth 3 --seeds 0 999999 --seeds-per-prompt 10 --batch 100   # stopped at 2,200 pairs
    npnet fit --dataset deep --out unet --scorer none --arch unet --widths 64 64 96 --epochs 15 --lr 1e-3 \\
        --schedule cosine --warmup 20
    python -m workflows.thumbnails unet/npnet.safetensors

with `world.split_captions()[0]` in captions.txt. The pictures are real and chosen: at guidance 1, of captions
that the net never saw, the seeds whose picture gains most of its caption. How often pictures gain and lose is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from npnet_core.checkpoint import load_npnet
from trainer import bases
from trainer.collecting.redenoising import Redenoising
from trainer.evaluation.methods import golden, inversion
from trainer.shapes import world
from trainer.shapes.pipeline_stages import load_world, two_settings
from workflows.build import SERVED

SIDE = 512  # pixels; ComfyUI shows a card at half of it
GAP = 12
TITLE, CAPTION = 34, 28  # heights of lines
INK, PAPER, GOLD = "#dddddd", "#202028", "#e8b84a"
SETTING = two_settings()["strong"]  # guidance 1
DEEP = Redenoising(inversion="fixed-point", depth=3)  # what wins most often there, docs/experiments.md
CAPTIONS = 24
SEEDS = range(3_000_000, 3_000_008)  # of pictures that nothing was fitted or reported on


@dataclass(frozen=True)
class Shown:
    """Pictures of every caption and seed, by what they started from: [N, H, W, 3], scores [N] and what is right [N]."""

    captions: Sequence[str]
    images: dict[str, Tensor]
    scores: dict[str, Tensor]
    right: dict[str, Tensor]

    def chosen(self, *after: str) -> list[int]:
        """One seed for every caption, those that gain most over ordinary noise first, by the least of these noises."""

        def gains(name: str) -> list[tuple[float, float]]:
            right, scores = (values[name] - values["ordinary"] for values in (self.right, self.scores))
            return list(zip(right.tolist(), scores.tolist(), strict=True))

        least = [min(each) for each in zip(*map(gains, after), strict=True)]
        order = sorted(range(len(least)), key=least.__getitem__)
        best = {self.captions[i]: i for i in order}  # the last, which is the best, of every caption
        return sorted(best.values(), key=least.__getitem__, reverse=True)


def shown(net_file: str) -> Shown:
    models = load_world()
    captions = [caption for caption in world.split_captions()[1][:CAPTIONS] for _ in SEEDS]
    noise = bases.initial_noise(models.base, [*SEEDS] * (len(captions) // len(SEEDS)), *world.SIZE)
    starts = {
        "ordinary": lambda base, prompts, noise, setting: noise,
        "re-denoised": partial(inversion, redenoising=DEEP),
        "golden": partial(golden, npnet=load_npnet(net_file)),
    }
    images = {name: [] for name in starts}
    for i in range(0, len(captions), 64):
        prompts = bases.encode(models.base, captions[i : i + 64])
        for name, start in starts.items():
            begun = start(models.base, prompts, noise[i : i + 64], SETTING)
            latents = bases.sample(models.base, begun, prompts, SETTING.schedule, SETTING.cfg)
            images[name].append(bases.decode(models.base, latents, batch=64))
    images = {name: torch.cat(parts) for name, parts in images.items()}
    preference, all_right = (
        {name: torch.as_tensor(scorer.score(each, captions)) for name, each in images.items()}
        for scorer in models.scorers
    )
    return Shown(captions, images, preference, all_right)


def tile(image: Tensor, side: int) -> Image.Image:
    pixels = Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy().astype(np.uint8))
    return pixels.resize((side, side), Image.Resampling.LANCZOS)


def text(draw: ImageDraw.ImageDraw, centre: float, top: int, words: str, size: int, ink: str = INK) -> None:
    draw.text((centre, top), words, ink, ImageFont.load_default(size), anchor="mt")


def beside(shown: Shown, names: Sequence[str], rows: Sequence[int]) -> Image.Image:
    """A column per noise, a row per caption."""
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(card)
    high = (SIDE - TITLE - GAP) // len(rows) - CAPTION - GAP
    side = min(high, (SIDE - GAP) // len(names) - GAP)
    column = (SIDE - GAP) / len(names)
    top = GAP
    for place, name in enumerate(names):
        centre = GAP / 2 + column * (place + 0.5)
        text(draw, centre, top, f"{name} noise" if len(names) < 3 else name, 28, GOLD if place else INK)
    top += TITLE
    for i in rows:
        for place, name in enumerate(names):
            centre = GAP / 2 + column * (place + 0.5)
            card.paste(tile(shown.images[name][i], side), (round(centre - side / 2), top))
        text(draw, SIDE / 2, top + side + 6, shown.captions[i], 22)
        top += side + CAPTION + GAP
    return card


def best_of_eight(shown: Shown, caption: str) -> Image.Image:
    """Eight seeds of one caption, the two that the scorer likes best in a frame."""
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(card)
    places = [i for i, each in enumerate(shown.captions) if each == caption]
    best = sorted(places, key=lambda i: -shown.scores["ordinary"][i])[:2]
    side = (SIDE - GAP) // 4 - GAP
    text(draw, SIDE / 2, 60, "the best of eight", 40, GOLD)
    for place, i in enumerate(places):
        x, y = GAP + (place % 4) * (side + GAP), 140 + (place // 4) * (side + GAP)
        if i in best:
            draw.rectangle((x - 6, y - 6, x + side + 5, y + side + 5), GOLD)
        card.paste(tile(shown.images["ordinary"][i], side), (x, y))
    text(draw, SIDE / 2, 140 + 2 * (side + GAP) + 20, caption, 26)
    return card


def main(net_file: str) -> None:
    made = shown(net_file)
    for name in ("re-denoised", "golden"):
        gained = (made.right[name] > made.right["ordinary"]).sum().item()
        lost = (made.right[name] < made.right["ordinary"]).sum().item()
        won = (made.scores[name] > made.scores["ordinary"]).float().mean().item()
        print(f"{name}: wins {won:.1%} of {len(made.captions)}, {gained} captions come right, {lost} go wrong")
    golden, redenoised, both = made.chosen("golden"), made.chosen("re-denoised"), made.chosen("golden", "re-denoised")
    eight = max(sorted(set(made.captions)), key=lambda caption: spread(made, caption))
    cards = {
        "golden_noise_sdxl": beside(made, ("ordinary", "golden"), golden[0:2]),
        "golden_noise_ksampler": beside(made, ("ordinary", "golden"), golden[2:4]),
        "golden_noise_dreamshaper_turbo": beside(made, ("ordinary", "golden"), golden[4:6]),
        "golden_noise_hunyuan_dit": beside(made, ("ordinary", "golden"), golden[6:8]),
        "golden_noise_vs_redenoise": beside(made, ("ordinary", "re-denoised", "golden"), both[:2]),
        "collect_pairs_sdxl": beside(made, ("ordinary", "re-denoised"), redenoised[0:2]),
        "pick_best_of_n": best_of_eight(made, eight),
    }
    for name, card in cards.items():
        card.save(SERVED / f"{name}.jpg", quality=88, optimize=True)


def spread(shown: Shown, caption: str) -> float:
    """How far the second best picture of a caption is above the third."""
    scores = [shown.scores["ordinary"][i].item() for i, each in enumerate(shown.captions) if each == caption]
    return sorted(scores)[-2] - sorted(scores)[-3]


if __name__ == "__main__":
    main(sys.argv[1])
