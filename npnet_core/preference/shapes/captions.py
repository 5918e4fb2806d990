"""The captions of the shapes world: "a small red cross at the left on a dark ground", and what they say.

Three kinds of captions: of one object with its size and place, of two or three alike with their size, and of two
different ones with how they lie; each says the ground.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InputError

COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle", "cross")
KINDS = tuple(itertools.product(COLOURS, SHAPES))  # every object that there is: (colour, shape)
NUMBERS = ("two", "three")
SIZES = ("small", "large")
PLACES = ("left", "right", "top", "bottom")
RELATIONS = ("left of", "right of", "above", "below")
GROUNDS = ("dark", "light")
MOST = 3  # objects in a picture


@dataclass(frozen=True)
class Scene:
    """What a caption says; what it does not say is None.

    Args:
        ground: one of :data:`GROUNDS`.
        kind: number into :data:`KINDS`.
        count: of that kind, 1 to 3.
        size: of :data:`SIZES`.
        place: of :data:`PLACES`, of a single object.
        relation: of :data:`RELATIONS`, to a second, different object …
        other: … number into :data:`KINDS`.
    """

    ground: str
    kind: int
    count: int = 1
    size: str | None = None
    place: str | None = None
    relation: str | None = None
    other: int | None = None

    @property
    def caption(self) -> str:
        thing = " ".join(KINDS[self.kind])
        if self.other is not None:
            said = f"a {thing} {self.relation} a {' '.join(KINDS[self.other])}"
        elif self.count > 1:
            said = f"{NUMBERS[self.count - 2]} {self.size} {thing}{'es' if thing.endswith('cross') else 's'}"
        else:
            said = f"a {self.size} {thing} at the {self.place}"
        return f"{said} on a {self.ground} ground"

    @property
    def about(self) -> str:
        """What kind of caption it is: ``one``, ``several`` or ``two``."""
        return "two" if self.other is not None else "several" if self.count > 1 else "one"

    @classmethod
    def from_caption(cls, caption: str) -> Scene:
        """The inverse of :attr:`caption`.

        Raises:
            InputError: for a prompt that is no caption of this world.
        """
        scene = BY_CAPTION.get(re.sub(r"\s+", " ", caption.strip()))
        if scene is None:
            raise InputError(
                f"{caption!r} is no caption of the shapes world: write one like {SCENES[0].caption!r}, "
                f"{SCENES[320].caption!r} or {SCENES[480].caption!r}."
            )
        return scene


SCENES = (  # all 3,520: 320 of one object, 160 of several alike, 3,040 of two
    *(
        Scene(ground, kind, size=size, place=place)
        for ground, kind, size, place in itertools.product(GROUNDS, range(len(KINDS)), SIZES, PLACES)
    ),
    *(
        Scene(ground, kind, count, size)
        for ground, kind, count, size in itertools.product(GROUNDS, range(len(KINDS)), (2, 3), SIZES)
    ),
    *(
        Scene(ground, kind, relation=relation, other=other)
        for ground, (kind, other), relation in itertools.product(
            GROUNDS, itertools.permutations(range(len(KINDS)), 2), RELATIONS
        )
    ),
)
BY_CAPTION = {scene.caption: scene for scene in SCENES}
KINDS_OF_CAPTIONS = ("one", "several", "two")


class Facts(NamedTuple):
    """Scenes as tensors; -1 is what a caption does not say."""

    ground: Tensor  # [B]: number into GROUNDS
    kinds: Tensor  # [B, 2]: numbers into KINDS
    count: Tensor  # [B]: of the first kind
    size: Tensor  # [B]: number into SIZES
    place: Tensor  # [B]: number into PLACES
    relation: Tensor  # [B]: number into RELATIONS

    @classmethod
    def of(cls, scenes: Sequence[Scene], device: str | torch.device = "cpu") -> Facts:
        def number(names: tuple[str, ...], said: str | None) -> int:
            return -1 if said is None else names.index(said)

        rows = [
            (
                GROUNDS.index(scene.ground),
                scene.kind,
                -1 if scene.other is None else scene.other,
                scene.count,
                number(SIZES, scene.size),
                number(PLACES, scene.place),
                number(RELATIONS, scene.relation),
            )
            for scene in scenes
        ]
        ground, first, second, *rest = torch.tensor(rows, device=device).T
        return cls(ground, torch.stack([first, second], 1), *rest)

    def counts(self) -> Tensor:
        """[B, kinds]: how many of each kind there are."""
        counts = self.count.new_zeros(len(self.count), len(KINDS))
        counts.scatter_(1, self.kinds[:, :1], self.count[:, None])
        second = self.kinds[:, 1:]
        return counts.scatter_add_(1, second.clamp(min=0), (second >= 0).long())
