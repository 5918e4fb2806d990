"""What a net does to noise, in figures that need no sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from .architectures import GoldenNet
from .golden import golden_noise


def prompt_dependence(npnet: GoldenNet, noise: Tensor, prompt: Tensor, other: Tensor) -> float:
    """‖g(x,c₁) − g(x,c₂)‖ / ‖g(x,c₁) − x‖: 0 for a net that ignores the prompt; NaN for one that changes nothing.

    Args:
        noise: x [B, C, H, W].
        prompt, other: c₁ and c₂, [B or 1, T, D] each.
    """
    golden = golden_noise(npnet, noise, prompt)
    difference = golden_noise(npnet, noise, other) - golden
    return (torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(golden - noise)).item()
