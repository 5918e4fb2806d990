"""What is in a picture: two detectors of different architecture, so that one can choose and the other can judge."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .captions import KINDS, MOST


class Seen(NamedTuple):
    counts: Tensor  # [B, kinds, 4]: logits of none, one, two and three of a kind
    centres: Tensor  # [B, kinds, 2]: (x, y) in pixels from the middle, the mean of a kind's objects
    large: Tensor  # [B, kinds]: logit of large against small
    light: Tensor  # [B]: logit of the light ground against the dark


class ConvolutionalDetector(nn.Module):
    """A, which selects: a convolutional network of local views; its maps are added up, so any size of picture will do.

    Args:
        width: channels of the first layers; the last have four times as many.
    """

    def __init__(self, width: int = 24):
        super().__init__()
        channels = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        layers = []
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            layers += [nn.Conv2d(before, after, 3, stride=2 if i in (2, 4) else 1, padding=1), nn.GELU()]
        self.trunk = nn.Sequential(*layers)
        self.heat = nn.Conv2d(channels[-1], len(KINDS), 1)
        self.mass = nn.Conv2d(channels[-1], len(KINDS), 1)  # a density: what it adds up to is how many there are
        self.size = nn.Conv2d(channels[-1], len(KINDS), 1)
        self.ground = nn.Linear(channels[-1], 1)
        nn.init.constant_(self.mass.bias, -5.0)  # of many cells, hardly any holds an object
        self.sharpness = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Seen:
        """images: [B, H, W, 3] in 0..1."""
        x = self.trunk(2 * images.movedim(3, 1) - 1)
        heat = self.heat(x)
        weights = heat.flatten(2).softmax(2)
        mass = F.softplus(self.mass(x)).flatten(2).sum(2)
        misses = mass[..., None] - torch.arange(MOST + 1, device=images.device)
        return Seen(
            -self.sharpness.exp() * misses.square(),
            weights @ positions(*heat.shape[2:], 4, images.device),
            (weights * self.size(x).flatten(2)).sum(2),
            self.ground(x.mean((2, 3)))[:, 0],
        )


class SeparableDetector(nn.Module):
    """B, which judges: large depthwise kernels with channels mixed at each place (ConvNeXt's blocks), and every kind of
    object asks by attention where it is and by a small network, of what it sees at all places together, how often.

    Args:
        width: channels of the first half of the blocks; the second half has twice as many.
        depth: blocks of each half.
    """

    def __init__(self, width: int = 48, depth: int = 3):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 2, 2),
            *(SeparableBlock(width) for _ in range(depth)),
            nn.Conv2d(width, 2 * width, 2, 2),
            *(SeparableBlock(2 * width) for _ in range(depth)),
        )
        self.heat, self.evidence, self.size = (nn.Conv2d(2 * width, len(KINDS), 1) for _ in range(3))
        nn.init.constant_(self.evidence.bias, -4.0)  # of many cells, hardly any holds an object
        self.number = nn.Sequential(nn.Linear(3, 32), nn.GELU(), nn.Linear(32, MOST + 1))
        self.ground = nn.Linear(2 * width, 1)

    def forward(self, images: Tensor) -> Seen:
        """images: [B, H, W, 3] in 0..1."""
        x = self.trunk(2 * images.movedim(3, 1) - 1)
        weights = self.heat(x).flatten(2).softmax(2)
        evidence = self.evidence(x).flatten(2).sigmoid()
        summary = torch.stack([evidence.sum(2), evidence.square().sum(2), evidence.amax(2)], 2)
        return Seen(
            self.number(summary),
            weights @ positions(*x.shape[2:], 4, images.device),
            (weights * self.size(x).flatten(2)).sum(2),
            self.ground(x.mean((2, 3)))[:, 0],
        )


class SeparableBlock(nn.Module):
    """ConvNeXt's: a depthwise 7x7 convolution, normalised, then two layers at each place; added to what came."""

    def __init__(self, width: int):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.mix = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.norm(self.spatial(x)))


def positions(h: int, w: int, pixels: int, device: torch.device) -> Tensor:
    """[h·w, 2]: (x, y) in pixels, from the picture's middle, of cells of ``pixels`` a side."""
    y, x = (pixels * (torch.arange(side, device=device) + 0.5 - side / 2) for side in (h, w))
    return torch.stack([x.repeat(h), y.repeat_interleave(w)], 1)


DETECTORS: dict[str, type[nn.Module]] = {"a": ConvolutionalDetector, "b": SeparableDetector}
