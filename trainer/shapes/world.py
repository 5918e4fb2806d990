"""Captioned pictures: "a small red cross at the left on a dark ground", drawn with antialiasing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from npnet_core.preference.shapes.captions import (
    GROUNDS,
    KINDS_OF_CAPTIONS,
    MOST,
    SCENES,
    SHAPES,
    SIZES,
    Facts,
    Scene,
)

COLOURS = {  # RGB in 0..1, in the order of captions.COLOURS
    "red": (0.90, 0.15, 0.15),
    "green": (0.15, 0.75, 0.20),
    "blue": (0.20, 0.35, 0.95),
    "yellow": (0.95, 0.85, 0.15),
    "purple": (0.65, 0.20, 0.80),
}
SIZE = (32, 32)  # pixels (height, width) of the pictures that the base models were made for …
WIDE = (24, 40)  # … and of their second size

RADII = {"small": (3.0, 3.5), "large": (4.8, 5.4), None: (4.0, 4.6)}  # pixels; None: of a caption that says no size
GREYS = {"dark": (0.10, 0.18), "light": (0.72, 0.80)}


def random_scenes(count: int, generator: torch.Generator) -> list[Scene]:
    """``count`` scenes, drawn with replacement: a third of each kind of caption, since their numbers differ so much."""
    ends = list(itertools.accumulate(sum(scene.about == kind for scene in SCENES) for kind in KINDS_OF_CAPTIONS))
    starts = torch.tensor([0, *ends[:-1]])
    which = torch.randint(len(ends), (count,), generator=generator)
    within = torch.rand(count, generator=generator) * (torch.tensor(ends) - starts)[which]
    return [SCENES[i] for i in (starts[which] + within.long()).tolist()]


def split_captions() -> tuple[list[str], list[str]]:
    """All captions in two parts, always the same, of every kind alike.

    Returns:
        three quarters to collect, fit and choose with; a quarter to report on, not to be looked at before.
    """
    order = torch.randperm(len(SCENES), generator=torch.Generator().manual_seed(0)).tolist()
    parts: tuple[list[str], list[str]] = [], []
    for kind in KINDS_OF_CAPTIONS:
        captions = [SCENES[i].caption for i in order if SCENES[i].about == kind]
        parts[0].extend(captions[len(captions) // 4 :])
        parts[1].extend(captions[: len(captions) // 4])
    shuffle = [torch.randperm(len(part), generator=torch.Generator().manual_seed(1)).tolist() for part in parts]
    return tuple([part[i] for i in order] for part, order in zip(parts, shuffle, strict=True))


class Pictures(NamedTuple):
    images: Tensor  # [B, H, W, 3] in 0..1
    centres: Tensor  # [B, 2, 2]: (x, y) in pixels from the middle: the first kind's objects' mean, and the second's


def draw(scenes: Sequence[Scene], generator: torch.Generator, size: tuple[int, int] = SIZE) -> Pictures:
    """One picture per scene, on the generator's device; place, size and shade vary within what the caption says.

    Args:
        size: (height, width) in pixels, at least 24 each: three large objects beside each other need that.
    """
    device, n = generator.device, len(scenes)
    facts = Facts.of(scenes, device)

    def uniform(low, high, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=device)

    radii = torch.tensor([RADII[name] for name in (*SIZES, None)], device=device)[facts.size]  # -1: the last
    radius = uniform(radii[:, :1], radii[:, 1:], MOST)
    canvas = torch.tensor([size[1], size[0]], dtype=torch.float, device=device)  # x, y
    number = facts.counts().sum(1)
    places = torch.stack(
        [
            _alone(facts.place, radius[:, 0], canvas, uniform),
            _two(facts.relation, radius, canvas, uniform),
            _three(radius, canvas, uniform),
        ]
    )
    centres = places[number - 1, torch.arange(n, device=device)]
    alike = facts.kinds[:, 1:] < 0
    kinds = torch.where(alike, facts.kinds[:, :1], facts.kinds[:, [0, 1, 1]])

    greys = torch.tensor([GREYS[name] for name in GROUNDS], device=device)[facts.ground]
    images = uniform(greys[:, 0], greys[:, 1])[:, None, None, None].expand(-1, 2 * size[0], 2 * size[1], 3)
    palette = torch.tensor(list(COLOURS.values()), device=device)
    for i in range(MOST):
        colour = palette[kinds[:, i] // len(SHAPES)] + uniform(-0.04, 0.04, 3)
        inside = _inside(kinds[:, i] % len(SHAPES), centres[:, i], radius[:, i], size)
        inside = inside & (number > i)[:, None, None]
        images = torch.where(inside[..., None], colour[:, None, None], images)
    images = F.avg_pool2d(images.movedim(3, 1), 2).movedim(1, 3).clamp(0, 1)

    there = (torch.arange(MOST, device=device) < number[:, None])[..., None]
    first = torch.where(alike, (centres * there).sum(1) / number[:, None], centres[:, 0])
    return Pictures(images, torch.stack([first, centres[:, 1]], 1) - canvas / 2)


def _alone(place: Tensor, radius: Tensor, canvas: Tensor, uniform) -> Tensor:
    """[B, 3, 2]: near one side, in the middle of the other direction."""
    horizontal, far = place < 2, place % 2 == 1
    length = torch.where(horizontal, canvas[0], canvas[1])
    across = torch.where(horizontal, canvas[1], canvas[0])
    along = radius + 0.5 + uniform(0.0, 1.0) * (length * 0.34 - radius - 0.5).clamp(min=0)
    along = torch.where(far, length - along, along)
    beside = across / 2 + uniform(-2.0, 2.0)
    centre = torch.where(horizontal[:, None], torch.stack([along, beside], 1), torch.stack([beside, along], 1))
    return centre[:, None].expand(-1, MOST, -1)


def _two(relation: Tensor, radius: Tensor, canvas: Tensor, uniform) -> Tensor:
    """[B, 3, 2]: two objects beside each other, as the relation says; in either direction where it says nothing."""
    free = relation < 0
    relation = torch.where(free, (uniform(0.0, 4.0)).long().clamp(max=3), relation)
    horizontal, swapped = relation < 2, relation % 2 == 1  # "right of" and "below" name the far object first
    length = torch.where(horizontal, canvas[0], canvas[1])
    across = torch.where(horizontal, canvas[1], canvas[0])
    both = radius[:, 0] + radius[:, 1]
    near = torch.where(swapped, radius[:, 1], radius[:, 0])
    gap = uniform(1.0, (length - 2 * both - 1).clamp(1, 4))
    start = near + 0.5 + uniform(0.0, 1.0) * (length - 2 * both - gap - 1).clamp(min=0)
    along = torch.stack([start, start + both + gap], 1)
    beside = (across / 2 + uniform(-3.0, 3.0))[:, None] + uniform(-1.5, 1.5, 2)
    centres = torch.where(horizontal[:, None, None], torch.stack([along, beside], 2), torch.stack([beside, along], 2))
    centres = torch.where(swapped[:, None, None], centres.flip(1), centres)
    return torch.cat([centres, centres[:, :1]], 1)


def _three(radius: Tensor, canvas: Tensor, uniform) -> Tensor:
    """[B, 3, 2]: two beside each other and one above or below, turned by a quarter half of the time on a square."""
    r = radius.max(1).values
    apart = 2 * r + uniform(1.0, 2.0)  # between centres of the two, and of the one from their line
    one = torch.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    x = torch.stack([-apart / 2, apart / 2, uniform(-1.5, 1.5)], 1)
    y = torch.stack([-one * apart / 2, -one * apart / 2, one * apart / 2], 1)
    turned = (uniform(0.0, 1.0) < 0.5)[:, None]
    x, y = torch.where(turned, y, x), torch.where(turned, x, y)
    room = (canvas / 2 - (apart / 2 + r)[:, None] - 0.5).clamp(min=0)
    shift = torch.stack([uniform(-1.0, 1.0), uniform(-1.0, 1.0)], 1) * room.clamp(max=4)
    middle = canvas / 2 + shift
    return torch.stack([middle[:, :1] + x, middle[:, 1:] + y], 2)


def _inside(shape: Tensor, centre: Tensor, radius: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, 2H, 2W], at half pixels: which points lie inside."""
    device = centre.device
    y = ((torch.arange(2 * size[0], device=device) + 0.5) / 2)[None, :, None] - centre[:, 1, None, None]
    x = ((torch.arange(2 * size[1], device=device) + 0.5) / 2)[None, None, :] - centre[:, 0, None, None]
    r = radius[:, None, None]
    circle = x**2 + y**2 <= r**2
    square = torch.maximum(x.abs(), y.abs()) <= 0.88 * r
    triangle = (y <= 0.85 * r) & (y >= -r) & (x.abs() <= 0.58 * (y + r))
    cross = (torch.minimum(x.abs(), y.abs()) <= 0.34 * r) & (torch.maximum(x.abs(), y.abs()) <= r)
    return torch.stack([circle, square, triangle, cross])[shape, torch.arange(len(shape), device=device)]
