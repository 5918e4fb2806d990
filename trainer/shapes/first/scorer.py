"""The preference model of the shapes world: a detector, and how well what it sees agrees with the caption."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.nn import functional as F

from npnet_core.preference.scorer import Scorer
from trainer.shapes.first import DETECTOR
from trainer.shapes.first.world import KINDS, SHAPES, Scene

CERTAIN = 8.0  # logits beyond this count as this: no single fact outweighs all others
BLUR = 1.6  # pixels by which two centres must differ for e to 1 odds on their order


class Seen(NamedTuple):
    presence: Tensor  # [B, kinds], logits
    centres: Tensor  # [B, kinds, 2]: (x, y) in pixels


class Detector(nn.Module):
    """Where each kind of object is: a heat map per kind, a quarter of the image's side, for images of any size."""

    def __init__(self, width: int = 24):
        super().__init__()
        channels = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        layers = []
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            layers += [nn.Conv2d(before, after, 3, stride=2 if i in (2, 4) else 1, padding=1), nn.GELU()]
        self.heat = nn.Sequential(*layers, nn.Conv2d(channels[-1], len(KINDS), 1))

    def forward(self, images: Tensor) -> Seen:
        """images: [B, H, W, 3] in 0..1."""
        heat = self.heat(2 * images.movedim(3, 1) - 1)
        h, w = heat.shape[2:]
        y, x = (4 * (torch.arange(side, device=heat.device) + 0.5) for side in (h, w))
        heat = heat.flatten(2)
        weights = heat.softmax(2)
        centres = torch.stack([weights @ x.repeat(h), weights @ y.repeat_interleave(w)], 2)
        return Seen(heat.logsumexp(2) - math.log(h * w), centres)


class Verdict(NamedTuple):
    """What a picture has of its caption's facts."""

    log_likelihood: Tensor  # [B], of all facts: which kinds are there, which are not, and the relation
    objects: Tensor  # [B]: share of the two shapes that are there in any colour
    attributes: Tensor  # [B]: share of the two objects that are there in their colour
    relation: Tensor  # [B]: 1 if both objects are there, and related as the caption says
    all_right: Tensor  # [B]: 1 if that holds and nothing else is there


def judge(seen: Seen, scenes: Sequence[Scene]) -> Verdict:
    """Compare what the detector saw with what the captions say. Every field is float32."""
    rows = torch.arange(len(scenes))
    first, relation, second = torch.tensor([(s.first, s.relation, s.second) for s in scenes]).T
    expected = torch.zeros_like(seen.presence)
    expected[rows, first] = expected[rows, second] = 1

    x, y = (seen.centres[rows, second] - seen.centres[rows, first]).T
    apart = torch.where(relation < 2, x, y) * torch.where(relation % 2 == 0, 1, -1)  # > 0: as the caption says
    logits = seen.presence.clamp(-CERTAIN, CERTAIN)
    log_likelihood = F.logsigmoid(apart / BLUR)
    log_likelihood = log_likelihood - F.binary_cross_entropy_with_logits(logits, expected, reduction="none").sum(1)

    there = seen.presence > 0
    both = there[rows, first] & there[rows, second]
    shapes = there.unflatten(1, (-1, len(SHAPES))).any(1)  # in any colour
    related = both & (apart > 0)
    return Verdict(
        log_likelihood,
        (shapes[rows, first % len(SHAPES)].float() + shapes[rows, second % len(SHAPES)].float()) / 2,
        (there[rows, first].float() + there[rows, second].float()) / 2,
        related.float(),
        (related & (there == expected.bool()).all(1)).float(),
    )


class ShapesScorer(Scorer):
    """One number of the verdict as a preference model; only for prompts that are captions.

    Args:
        field: the field of :class:`Verdict` that is the score.
    """

    def __init__(self, kind: str, detector: Detector, field: str):
        super().__init__(kind, detector)
        self.field = field

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """
        Raises:
            InputError: for a prompt that is no caption.
        """
        scenes = [Scene.from_caption(prompt) for prompt in prompts]
        device = next(self.model.parameters()).device
        seen = Seen(*(value.cpu() for value in self.model(images.to(device, torch.float32))))
        return getattr(judge(seen, scenes), self.field)


def load_detector(path: Path = DETECTOR, device: str | torch.device = "cpu") -> Detector:
    detector = Detector()
    load_model(detector, path)
    return detector.to(device).eval()


def load_scorers(path: Path = DETECTOR, device: str | torch.device = "cpu") -> tuple[ShapesScorer, ShapesScorer]:
    """The preference (log-likelihood of the caption's facts), and 1 or 0 for a caption that is fully right."""
    detector = load_detector(path, device)
    return (
        ShapesScorer("shapes", detector, "log_likelihood"),
        ShapesScorer("captions-right", detector, "all_right"),
    )
