"""What every preference model is to the rest of the house."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError

OVERSHOOT = 0.5  # how far beyond 0..1 resampling may carry a pixel; more is another range


class Scorer(ABC):
    """How well images suit prompts, or how good they look, in the model's own units: the higher the better.

    A scorer of another kind gives its ``kind`` and ``model`` here and defines :meth:`rate`, and :meth:`smooth_rate` if
    a net is to be trained on it.

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
        return self.rate(*checked(images, prompts)).float().cpu()

    def reward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """The scores [B] with a gradient with respect to the images; where the model computes, fp32 or finer.

        Nothing is rounded to 8 bits on the way, so they differ from :meth:`score`, which is what to report: by less
        than a tenth of the standard deviation between pictures, seen at 1024x1024 with tiny models of every kind.

        Raises:
            InputError: as :meth:`score`, and for a scorer without gradient.
        """
        return self.smooth_rate(*checked(images, prompts))

    @property
    def differentiable(self) -> bool:
        """Whether there is a :meth:`reward`."""
        return type(self).smooth_rate is not Scorer.smooth_rate

    @abstractmethod
    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of checked images [B, H, W, 3] in 0..1 with one prompt each; gradients are off."""

    def smooth_rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """:meth:`rate` as a differentiable function of the images."""
        raise InputError(
            f"The scores of {self.kind} have no gradient, which a net is trained on: choose another scorer, or define "
            "its smooth_rate."
        )


class PixelScorer(Scorer):
    """A scorer whose model sees square pixels.

    Attributes:
        model: has an ``architecture``.
        pixels: a function of :mod:`npnet_core.preference.pixels`.
    """

    pixels: Callable[..., Tensor]

    @abstractmethod
    def look(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of normalised pixels [B, 3, S, S], a differentiable function of them."""

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.look(self.pixels(images, self.model.architecture.vision_cfg.image_size), prompts)

    def smooth_rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.look(self.pixels(images, self.model.architecture.vision_cfg.image_size, rounded=False), prompts)


def checked(images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Sequence[str]]:
    """The images [B, H, W, 3], clamped to 0..1, and their prompts.

    Raises:
        InputError: for another shape or type, NaN, values beyond :data:`OVERSHOOT`, or another number of prompts.
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
    if isinstance(prompts, str) or len(prompts) != len(images):
        count = "a single string" if isinstance(prompts, str) else f"{len(prompts)} prompts"
        raise InputError(f"{len(images)} images came with {count}: give a list with one prompt per image.")
    return images if low >= 0 and high <= 1 else images.clamp(0, 1), prompts
