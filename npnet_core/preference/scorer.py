"""What every preference model is to the rest of the house."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError

OVERSHOOT = 0.5  # how far beyond 0..1 resampling may carry a pixel; more is another range


class Scorer(ABC):
    """How well images suit prompts, or how good they look, in the model's own units: the higher the better.

    A scorer of another kind gives its ``kind`` and ``model`` here and defines :meth:`rate`.

    Attributes:
        kind: the name under which its scores are stored and compared.
        model: a module that holds all weights. Whoever manages memory may move it between two calls: a scorer
            computes where its weights are.
    """

    def __init__(self, kind: str, model: nn.Module):
        self.kind, self.model = kind, model

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Raw scores float32 [B], on the CPU: not compared, averaged or normalised over the batch.

        Args:
            images: [B, H, W, 3] in 0..1, on any device; what overshoots a little is clamped, as saving it would.
            prompts: one per image.

        Raises:
            InputError: for images of another shape or range, NaN among them, or another number of prompts.
        """
        images = checked(images)
        if isinstance(prompts, str) or len(prompts) != len(images):
            count = "a single string" if isinstance(prompts, str) else f"{len(prompts)} prompts"
            raise InputError(f"{len(images)} images came with {count}: give a list with one prompt per image.")
        return self.rate(images, prompts).float().cpu()

    @abstractmethod
    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of checked images [B, H, W, 3] in 0..1 with one prompt each; gradients are off."""


def checked(images: Tensor) -> Tensor:
    """The images [B, H, W, 3], clamped to 0..1.

    Raises:
        InputError: for another shape or type, NaN, or values beyond :data:`OVERSHOOT`.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.numel() == 0 or not images.is_floating_point():
        raise InputError(
            f"Images of shape {list(images.shape)} and type {images.dtype} came: give floating-point RGB images "
            "[batch, height, width, 3] in 0..1."
        )
    low, high = (limit.item() for limit in images.aminmax())
    if math.isnan(low) or math.isnan(high):
        raise InputError("The images hold NaN: look at how they were sampled and decoded (a VAE in fp16 can overflow).")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise InputError(f"Images between {low:g} and {high:g} came: bring them into 0..1.")
    return images if low >= 0 and high <= 1 else images.clamp(0, 1)
