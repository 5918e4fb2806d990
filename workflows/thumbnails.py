"""Draws the templates' cards: squares with pictures of the shapes world, the same seed before and after.

    python -m workflows.thumbnails

After is re-denoised noise, which NPNets learn to predict. The pictures are real and chosen: at guidance 1, the seeds
whose picture gains most of its caption. How often pictures gain and lose is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainer import bases
from trainer.collecting.redenoising import Redenoising
from trainer.evaluation.methods import inversion
from trainer.shapes.pipeline_stages import load_models, two_settings
from trainer.shapes.world import SIZE
from trainer.shapes.worlds import first_of_all
from workflows.build import SERVED
from workflows.templates import TEMPLATES, pick_best_of_n

SIDE = 512  # pixels; ComfyUI shows a card at half of it
GAP = 12
TITLE, CAPTION = 34, 28  # heights of lines
INK, PAPER, GOLD = "#dddddd", "#202028", "#e8b84a"
WORLD = first_of_all()  # its captions are short
SETTING = two_settings(WORLD)["strong"]  # guidance 1
DEEP = Redenoising(inversion="fixed-point", depth=3)  # what wins most often there, docs/experiments.md
CAPTIONS = 32
SEEDS = range(3_000_000, 3_000_008)  # of pictures that nothing was fitted or reported on


@dataclass(frozen=True)
class Shown:
    """Pictures of every caption and seed, by what they started from: [N, H, W, 3], scores [N] and what is right [N]."""

    captions: Sequence[str]
    images: dict[str, Tensor]
    scores: dict[str, Tensor]
    right: dict[str, Tensor]

    def chosen(self) -> list[int]:
        """One seed for every caption, those that gain most first."""
        right, scores = (values["re-denoised"] - values["ordinary"] for values in (self.right, self.scores))
        gain = list(zip(right.tolist(), scores.tolist(), strict=True))
        best = {self.captions[i]: i for i in sorted(range(len(gain)), key=gain.__getitem__)}  # the last of each
        return sorted(best.values(), key=gain.__getitem__, reverse=True)


def shown() -> Shown:
    models = load_models(WORLD)
    captions = [caption for caption in WORLD.captions()[1][:CAPTIONS] for _ in SEEDS]
    noise = bases.initial_noise(models.base, [*SEEDS] * (len(captions) // len(SEEDS)), *SIZE)
    starts = {
        "ordinary": lambda base, prompts, noise, setting: noise,
        "re-denoised": partial(inversion, redenoising=DEEP),
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


def beside(shown: Shown, rows: Sequence[int]) -> Image.Image:
    """A column per noise, a row per caption."""
    names = list(shown.images)
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(card)
    high = (SIDE - TITLE - GAP) // len(rows) - CAPTION - GAP
    side = min(high, (SIDE - GAP) // len(names) - GAP)
    column = (SIDE - GAP) / len(names)
    top = GAP
    for place, name in enumerate(names):
        centre = GAP / 2 + column * (place + 0.5)
        text(draw, centre, top, f"{name} noise", 28, GOLD if place else INK)
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


def main() -> None:
    made = shown()
    change = made.right["re-denoised"] - made.right["ordinary"]
    won = (made.scores["re-denoised"] > made.scores["ordinary"]).float().mean()
    print(f"wins {won:.1%} of {len(change)}; {(change > 0).sum()} captions come right, {(change < 0).sum()} go wrong")
    rows = made.chosen()
    for template in TEMPLATES:
        if template is pick_best_of_n:
            card = best_of_eight(made, max(sorted(set(made.captions)), key=lambda caption: spread(made, caption)))
        else:
            card = beside(made, rows[:2])
            rows = rows[2:]
        card.save(SERVED / f"{template.__name__}.jpg", quality=88, optimize=True)


def spread(shown: Shown, caption: str) -> float:
    """How far the second best picture of a caption is above the third."""
    scores = [shown.scores["ordinary"][i].item() for i, each in enumerate(shown.captions) if each == caption]
    return sorted(scores)[-2] - sorted(scores)[-3]


if __name__ == "__main__":
    main()
