"""What was done to noise, by a net or by re-denoising, in figures that need no sampling."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from .architectures import GoldenNet
from .errors import InputError
from .golden import golden_noise
from .layers import decompose


class Whiteness(NamedTuple):
    """How far noise is from white, whose figures are 1, 0, 0, 1, 1."""

    variance: float
    lag_x: float  # correlation of neighbours along a row …
    lag_y: float  # … and along a column
    low: float  # power per coefficient where max(|fx|, |fy|) is below 1/8 cycles per pixel …
    high: float  # … and where it is above 3/8


def prompt_dependence(npnet: GoldenNet, noise: Tensor, prompt: Tensor, other: Tensor) -> float:
    """‖g(x,c₁) − g(x,c₂)‖ / ‖g(x,c₁) − x‖: 0 for a net that ignores the prompt; NaN for one that changes nothing.

    Args:
        noise: x [B, C, H, W].
        prompt, other: c₁ and c₂, [B or 1, T, D] each.
    """
    golden = golden_noise(npnet, noise, prompt)
    return dependence(noise, golden, golden_noise(npnet, noise, other))


def dependence(noise: Tensor, golden: Tensor, other: Tensor) -> float:
    """The same of x, g(x,c₁) and g(x,c₂)."""
    return (torch.linalg.vector_norm(other - golden) / torch.linalg.vector_norm(golden - noise)).item()


def whiteness(noise: Tensor) -> Whiteness:
    """Of all images and channels of [B, C, H, W] together; nothing is subtracted or divided out of it before.

    With 64 images of 4x128x128 white noise the variance strays by 7e-4, correlations by 5e-4.
    """
    x = noise.double()
    power = torch.fft.fft2(x, norm="ortho").abs().square().mean((0, 1))
    fy, fx = (torch.fft.fftfreq(side, device=x.device).abs() for side in power.shape)
    frequency = torch.maximum(fy[:, None], fx[None, :])
    figures = (
        x.square().mean() - x.mean().square(),
        (x[..., 1:] * x[..., :-1]).mean() / x.square().mean(),
        (x[..., 1:, :] * x[..., :-1, :]).mean() / x.square().mean(),
        power[frequency < 1 / 8].mean(),
        power[frequency > 3 / 8].mean(),
    )
    return Whiteness(*(figure.item() for figure in figures))


def explained(source: Tensor, target: Tensor, golden: Tensor) -> float:
    """Share of the target's change that a net predicts: 1 − ‖x' − g‖² / ‖x' − x‖². 1 all of it, 0 as good as nothing,
    below 0 worse.

    Args:
        source, target, golden: x, x' and g, of one shape.
    """
    error, change = (torch.linalg.vector_norm((target - x).double()) for x in (golden, source))
    return (1 - (error / change).square()).item()


class Overlap(NamedTuple):
    """Sorted |cosine| between singular vectors of equal rank, largest first, mean over pairs: [M] each."""

    left: Tensor
    right: Tensor


def singular_vector_overlap(source: Tensor, target: Tensor) -> Overlap:
    """How far two noises share their singular vectors (fig. 8), their channels tiled into one matrix as in the net.

    Args:
        source, target: [B, C, H, W], C a square number.

    Raises:
        InputError: for another number of channels.
    """
    tile = math.isqrt(source.shape[1])
    if tile**2 != source.shape[1]:
        raise InputError(
            f"Noise of {source.shape[1]} channels cannot be tiled into one matrix: use latents of 4 or 16 channels."
        )
    a, b = decompose(source, tile), decompose(target, tile)
    size = a.s.shape[-1]  # the shorter side; vectors beyond it belong to no singular value
    left = (a.u * b.u).sum(-2).abs()[:, :size]
    right = (a.vh * b.vh).sum(-1).abs()[:, :size]
    return Overlap(*(cosine.sort(-1, descending=True).values.mean(0) for cosine in (left, right)))


def device_difference(
    npnet: GoldenNet, noise: Tensor, prompt: Tensor, device: torch.device, prompt_mask: Tensor | None = None
) -> float:
    """The largest difference between golden noise computed on the CPU and on ``device``; arguments as for
    :func:`npnet_core.golden.golden_noise`."""
    cpu, other = (
        golden_noise(copy.deepcopy(npnet).to(place), noise.cpu(), prompt, prompt_mask)
        for place in (torch.device("cpu"), device)
    )
    return (cpu - other).abs().max().item()
