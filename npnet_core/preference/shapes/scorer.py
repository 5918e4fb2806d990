"""The preference models of the shapes world: how well what a detector sees agrees with the caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..scorer import Scorer
from .captions import Facts, Scene
from .detectors import Seen

CERTAIN = 8.0  # logits beyond this count as this: no single fact outweighs all others
BLUR = 1.6  # pixels by which two centres must differ for e to 1 odds on their order


class Verdict(NamedTuple):
    """What a picture has of its caption's facts."""

    log_likelihood: Tensor  # [B], of all facts
    objects: Tensor  # [B]: 1 if as many of every kind are there as the caption says, and none of the others
    size: Tensor  # [B]: 1 if the size is right, or the caption says none
    layout: Tensor  # [B]: 1 if place or relation is right, or the caption says none
    ground: Tensor  # [B]: 1 if the ground is
    all_right: Tensor  # [B]: 1 if all of it is


def judge(seen: Seen, scenes: Sequence[Scene]) -> Verdict:
    """Compare what a detector saw with what the captions say. Every field is float32; the first has a gradient."""
    facts = Facts.of(scenes, seen.light.device)
    rows, first = torch.arange(len(scenes), device=seen.light.device), facts.kinds[:, 0]
    expected = facts.counts()
    counts = seen.counts - seen.counts.detach().amax(2, keepdim=True)
    counts = counts.clamp(min=-CERTAIN).log_softmax(2).gather(2, expected[..., None])[..., 0]

    large = seen.large[rows, first] * (2 * facts.size - 1)
    light = seen.light * (2 * facts.ground - 1)
    layout = _layout(seen.centres, facts)
    says_size, says_layout = facts.size >= 0, (facts.place >= 0) | (facts.relation >= 0)

    def likelihood(logit: Tensor) -> Tensor:
        return F.logsigmoid(logit.clamp(-CERTAIN, CERTAIN))

    log_likelihood = counts.sum(1) + likelihood(light)
    log_likelihood = log_likelihood + likelihood(large) * says_size + likelihood(layout / BLUR) * says_layout
    objects = (seen.counts.argmax(2) == expected).all(1)
    size, layout, ground = (large > 0) | ~says_size, (layout > 0) | ~says_layout, light > 0
    right = objects & size & layout & ground
    return Verdict(log_likelihood.float(), *(fact.float() for fact in (objects, size, layout, ground, right)))


def _layout(centres: Tensor, facts: Facts) -> Tensor:
    """[B], in pixels: how far things lie to the side that the caption says, less how far they are off it."""
    rows = torch.arange(len(centres), device=centres.device)
    first, second = centres[rows, facts.kinds[:, 0]], centres[rows, facts.kinds[:, 1].clamp(min=0)]
    away = torch.where(facts.relation[:, None] >= 0, first - second, first)  # from the other, or from the middle
    side = torch.maximum(facts.place, facts.relation)  # both count left, right, top, bottom
    along = torch.where(side < 2, away[:, 0], away[:, 1]) * torch.where(side % 2 == 0, -1, 1)
    across = torch.where(side < 2, away[:, 1], away[:, 0])
    return along - across.abs()


class ShapesScorer(Scorer):
    """One number of the verdict as a preference model; only for prompts that are captions.

    Args:
        kind: its name.
        detector: what looks.
        field: the field of :class:`Verdict` that is the score.
    """

    def __init__(self, kind: str, detector: nn.Module, field: str = "log_likelihood"):
        super().__init__(kind, detector)
        self.field = field

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """
        Raises:
            InputError: for a prompt that is no caption.
        """
        scenes = [Scene.from_caption(prompt) for prompt in prompts]
        return getattr(judge(self.model(images.to(next(self.model.parameters()))), scenes), self.field)

    def smooth_rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Raises InputError as :meth:`rate`, and for a field that only counts."""
        return self.rate(images, prompts) if self.differentiable else super().smooth_rate(images, prompts)

    @property
    def differentiable(self) -> bool:
        return self.field == "log_likelihood"
