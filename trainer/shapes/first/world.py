"""Captioned pictures: "a red circle left of a blue square", drawn with antialiasing on a grey ground."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from npnet_core.errors import InputError

COLOURS = {  # RGB in 0..1
    "red": (0.90, 0.15, 0.15),
    "green": (0.15, 0.80, 0.20),
    "blue": (0.20, 0.30, 0.95),
    "yellow": (0.95, 0.85, 0.15),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")
KINDS = tuple(itertools.product(COLOURS, SHAPES))  # every object that there is: (colour, shape)

SIZE = (32, 32)  # pixels (height, width) of the pictures that the base model was made for …
WIDE = (24, 40)  # … and of its second size

_CAPTION = re.compile(
    rf"a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) ({'|'.join(RELATIONS)}) "
    rf"a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
)


@dataclass(frozen=True)
class Scene:
    """What a caption says: two different objects, as numbers into :data:`KINDS`, and one of :data:`RELATIONS`."""

    first: int
    relation: int
    second: int

    @property
    def caption(self) -> str:
        objects = [" ".join(KINDS[kind]) for kind in (self.first, self.second)]
        return f"a {objects[0]} {RELATIONS[self.relation]} a {objects[1]}"

    @classmethod
    def from_caption(cls, caption: str) -> Scene:
        """The inverse of :attr:`caption`.

        Raises:
            InputError: for a prompt that is no caption of this world.
        """
        match = _CAPTION.fullmatch(caption.strip())
        if match is None:
            raise InputError(
                f"{caption!r} is no caption of the shapes world: write one like 'a red circle left of a blue square'."
            )
        colour, shape, relation, other_colour, other_shape = match.groups()
        return cls(KINDS.index((colour, shape)), RELATIONS.index(relation), KINDS.index((other_colour, other_shape)))


SCENES = tuple(  # all 528
    Scene(first, relation, second)
    for first, second in itertools.permutations(range(len(KINDS)), 2)
    for relation in range(len(RELATIONS))
)


def random_scenes(count: int, generator: torch.Generator) -> list[Scene]:
    """``count`` scenes, drawn with replacement."""
    return [SCENES[i] for i in torch.randint(len(SCENES), (count,), generator=generator).tolist()]


def split_captions() -> tuple[list[str], list[str]]:
    """All captions in two parts, always the same: 400 to collect, fit and choose with, 128 to report on."""
    captions = [SCENES[i].caption for i in torch.randperm(len(SCENES), generator=torch.Generator().manual_seed(0))]
    return captions[:400], captions[400:]


class Pictures(NamedTuple):
    images: Tensor  # [B, H, W, 3] in 0..1
    centres: Tensor  # [B, 2, 2]: (x, y) in pixels of the first and the second object


def draw(scenes: Sequence[Scene], generator: torch.Generator, size: tuple[int, int] = SIZE) -> Pictures:
    """One picture per scene; place, size and shade are random, the facts are the caption's.

    Args:
        size: (height, width) in pixels, at least 24 each: two objects of up to 10 pixels and a gap need that.
    """

    def uniform(low: float, high: float | Tensor, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(scenes), *shape, generator=generator)

    kinds = torch.tensor([(scene.first, scene.second) for scene in scenes])
    relation = torch.tensor([scene.relation for scene in scenes])
    horizontal, swapped = relation < 2, relation % 2 == 1  # "right of" and "below" name the far object first
    length = torch.where(horizontal, size[1], size[0])  # of the axis on which the objects lie
    across = torch.where(horizontal, size[0], size[1])

    radius = uniform(4, 5, 2)
    room = length - 2 * radius.sum(1)
    gap = uniform(1, room.clamp(max=4))
    near = radius[:, 0] + uniform(0, room - gap)
    far = near + radius.sum(1) + gap
    along = torch.stack([near, far], 1)
    beside = (across / 2 + uniform(-3, 3))[:, None] + uniform(-1.5, 1.5, 2)
    centres = torch.where(horizontal[:, None, None], torch.stack([along, beside], 2), torch.stack([beside, along], 2))
    centres = torch.where(swapped[:, None, None], centres.flip(1), centres)
    radius = torch.where(swapped[:, None], radius.flip(1), radius)

    palette = torch.tensor(list(COLOURS.values()))
    ground = uniform(0.4, 0.5)[:, None, None, None]
    images = ground.expand(-1, 2 * size[0], 2 * size[1], 3)
    for i in range(2):
        colour = palette[kinds[:, i] // len(SHAPES)] + uniform(-0.03, 0.03, 3)
        inside = _inside(kinds[:, i] % len(SHAPES), centres[:, i], radius[:, i], size)
        images = torch.where(inside[..., None], colour[:, None, None], images)
    images = F.avg_pool2d(images.movedim(3, 1), 2).movedim(1, 3)
    return Pictures(images.clamp(0, 1), centres)


def _inside(shape: Tensor, centre: Tensor, radius: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, 2H, 2W], at half pixels: which points lie inside."""
    y = ((torch.arange(2 * size[0]) + 0.5) / 2)[None, :, None] - centre[:, 1, None, None]
    x = ((torch.arange(2 * size[1]) + 0.5) / 2)[None, None, :] - centre[:, 0, None, None]
    r, shape = radius[:, None, None], shape[:, None, None]
    circle = x**2 + y**2 <= r**2
    square = torch.maximum(x.abs(), y.abs()) <= 0.88 * r
    triangle = (y <= 0.85 * r) & (y >= -r) & (x.abs() <= 0.58 * (y + r))
    return torch.where(shape == 0, circle, torch.where(shape == 1, square, triangle))
