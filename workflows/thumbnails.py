"""Draws the templates' cards: squares with pictures of the shapes world, the same seed before and after.

    python -m workflows.thumbnails [--few-step FOLDER]

After is re-denoised noise, which NPNets learn to predict. For templates of few-step models it is noise that went up the
gradient of a detector's score, which nets by reward learn to do; their cards need a distilled model. The pictures are
real and chosen: at guidance 1, the seeds whose picture gains most of its caption. How often pictures gain and lose is
printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainer import bases
from trainer.bases import Base, Prompts, Schedule
from trainer.collecting.redenoising import Redenoising
from trainer.evaluation.methods import inversion
from trainer.shapes import world
from trainer.shapes.pipeline_stages import load_models, two_settings
from trainer.shapes.scorer import load_scorers
from trainer.shapes.world import SIZE
from trainer.shapes.worlds import first_of_all
from workflows.build import SERVED
from workflows.templates import (
    TEMPLATES,
    golden_noise_flux_schnell,
    golden_noise_sdxl_turbo,
    golden_noise_z_image_turbo,
    pick_best_of_n,
)

SIDE = 512  # pixels; ComfyUI shows a card at half of it
GAP = 12
TITLE, CAPTION = 34, 28  # heights of lines
INK, PAPER, GOLD = "#dddddd", "#202028", "#e8b84a"
WORLD = first_of_all()  # its captions are short
SETTING = two_settings(WORLD)["strong"]  # guidance 1
DEEP = Redenoising(inversion="fixed-point", depth=3)  # what wins most often there, docs/experiments.md
CAPTIONS = 32
SEEDS = range(3_000_000, 3_000_008)  # of pictures that nothing was fitted or reported on
BY_REWARD = (golden_noise_sdxl_turbo, golden_noise_flux_schnell, golden_noise_z_image_turbo)
ONE_STEP = Schedule("ddim", 1, "trailing")
ASCENT = 4  # steps of length 1, for noise that is 16 long


@dataclass(frozen=True)
class Shown:
    """Pictures of every caption and seed by what they started from, before and after: [N, H, W, 3], scores [N] and what
    is right [N]."""

    captions: Sequence[str]
    images: dict[str, Tensor]
    scores: dict[str, Tensor]
    right: dict[str, Tensor]

    def change(self, values: dict[str, Tensor]) -> Tensor:
        before, after = values.values()
        return after - before

    def chosen(self) -> list[int]:
        """One seed for every caption, those that gain most first."""
        gain = list(zip(self.change(self.right).tolist(), self.change(self.scores).tolist(), strict=True))
        best = {self.captions[i]: i for i in sorted(range(len(gain)), key=gain.__getitem__)}  # the last of each
        return sorted(best.values(), key=gain.__getitem__, reverse=True)

    def __str__(self) -> str:
        right, won = self.change(self.right), (self.change(self.scores) > 0).float().mean()
        return (
            f"{' against '.join(reversed(self.images))}: wins {won:.1%} of {len(right)}; {(right > 0).sum()} captions "
            f"come right, {(right < 0).sum()} go wrong"
        )


Start = Callable[[Tensor, Prompts, Sequence[str]], Tensor]  # what images of noises, prompts and captions start from


def shown(
    base: Base, captions: Sequence[str], starts: dict[str, Start], schedule: Schedule, preference, all_right
) -> Shown:
    captions = [caption for caption in captions for _ in SEEDS]
    noise = bases.initial_noise(base, [*SEEDS] * (len(captions) // len(SEEDS)), *SIZE)
    images = {name: [] for name in starts}
    for i in range(0, len(captions), 64):
        texts = captions[i : i + 64]
        prompts = bases.encode(base, texts)
        for name, start in starts.items():
            latents = bases.sample(base, start(noise[i : i + 64], prompts, texts), prompts, schedule, 1.0)
            images[name].append(bases.decode(base, latents, batch=64))
    images = {name: torch.cat(parts) for name, parts in images.items()}
    scores, right = (
        {name: torch.as_tensor(scorer.score(each, captions)) for name, each in images.items()}
        for scorer in (preference, all_right)
    )
    return Shown(captions, images, scores, right)


def ordinary(noise: Tensor, prompts: Prompts, captions: Sequence[str]) -> Tensor:
    return noise


def redenoised() -> Shown:
    models = load_models(WORLD)

    def start(noise: Tensor, prompts: Prompts, captions: Sequence[str]) -> Tensor:
        return inversion(models.base, prompts, noise, SETTING, redenoising=DEEP)

    starts = {"ordinary noise": ordinary, "re-denoised noise": start}
    return shown(models.base, WORLD.captions()[1][:CAPTIONS], starts, SETTING.schedule, *models.scorers)


def by_reward(few_step: Path) -> Shown:
    """One step of a distilled model, the shortest captions: detector A is asked for its gradient, B chooses."""
    base, (preference, all_right, rewards) = bases.load_base(few_step), load_scorers()

    def start(noise: Tensor, prompts: Prompts, captions: Sequence[str]) -> Tensor:
        for _ in range(ASCENT):
            noise = noise.requires_grad_()
            reward = rewards.reward(bases.generate(base, noise, prompts, ONE_STEP, 1.0), captions)
            (gradient,) = torch.autograd.grad(reward.sum(), noise)
            noise = noise.detach() + gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
        return noise

    starts = {"ordinary noise": ordinary, "noise by reward": start}
    captions = sorted(world.split_captions()[1], key=len)[:CAPTIONS]
    return shown(base, captions, starts, ONE_STEP, preference, all_right)


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
        text(draw, centre, top, name, 28, GOLD if place else INK)
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
    best = sorted(places, key=lambda i: -shown.scores["ordinary noise"][i])[:2]
    side = (SIDE - GAP) // 4 - GAP
    text(draw, SIDE / 2, 60, "the best of eight", 40, GOLD)
    for place, i in enumerate(places):
        x, y = GAP + (place % 4) * (side + GAP), 140 + (place // 4) * (side + GAP)
        if i in best:
            draw.rectangle((x - 6, y - 6, x + side + 5, y + side + 5), GOLD)
        card.paste(tile(shown.images["ordinary noise"][i], side), (x, y))
    text(draw, SIDE / 2, 140 + 2 * (side + GAP) + 20, caption, 26)
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--few-step", type=Path, help="OUT/few-step-base of `python -m benchmarks.reward --out OUT --net`"
    )
    options = parser.parse_args()
    made = redenoised()
    print(made)
    best = best_of_eight(made, max(sorted(set(made.captions)), key=lambda caption: spread(made, caption)))
    others = [template for template in TEMPLATES if template not in (pick_best_of_n, *BY_REWARD)]
    cards = {pick_best_of_n: best} | in_pairs(made, others)
    if options.few_step is not None:
        made = by_reward(options.few_step)
        print(made)
        cards |= in_pairs(made, BY_REWARD)
    for template, card in cards.items():
        card.save(SERVED / f"{template.__name__}.jpg", quality=88, optimize=True)


def in_pairs(shown: Shown, templates: Sequence[Callable]) -> dict[Callable, Image.Image]:
    """A card of two captions for each, the best first."""
    rows = shown.chosen()
    return {template: beside(shown, rows[2 * i : 2 * i + 2]) for i, template in enumerate(templates)}


def spread(shown: Shown, caption: str) -> float:
    """How far the second best picture of a caption is above the third."""
    scores = [shown.scores["ordinary noise"][i].item() for i, each in enumerate(shown.captions) if each == caption]
    return sorted(scores)[-2] - sorted(scores)[-3]


if __name__ == "__main__":
    main()
