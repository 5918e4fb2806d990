"""LAION's aesthetic predictor: how good an image looks, from 1 to 10, whatever its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .clip import clip_config
from .pixels import at_least_fp32, crop_to_square
from .scorer import PixelScorer

HIDDEN = (1024, 128, 64, 16)


class LinearHead(nn.Module):
    """Features [B, D] → [B]: five matrices and nothing between them, as published.

    Published files count the dropouts of training, so they keep their places.
    """

    def __init__(self, width: int):
        super().__init__()
        a, b, c, d = HIDDEN
        self.layers = nn.Sequential(
            nn.Linear(width, a),
            nn.Identity(),
            nn.Linear(a, b),
            nn.Identity(),
            nn.Linear(b, c),
            nn.Identity(),
            nn.Linear(c, d),
            nn.Linear(d, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(at_least_fp32(features))[:, 0]


class AestheticPredictor(nn.Module):
    """CLIP's image tower and a head on its normalised features."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        from transformers import CLIPVisionModelWithProjection

        self.architecture = architecture
        self.tower = CLIPVisionModelWithProjection(clip_config(architecture).vision_config)
        self.head = LinearHead(architecture.embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] → [B]."""
        features = self.tower(pixels.to(self.tower.visual_projection.weight)).image_embeds
        return self.head(F.normalize(at_least_fp32(features), dim=-1))


class AestheticScorer(PixelScorer):
    model: AestheticPredictor
    pixels = staticmethod(partial(crop_to_square, as_torchvision=True))

    def look(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.model(pixels)
