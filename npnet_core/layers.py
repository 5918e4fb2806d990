"""The small blocks of NPNet's singular-value branch and text term.

Here, in ``swin.py`` and in ``unet.py`` every layer takes ``operations``, the namespace that Linear and LayerNorm come
from: ``torch.nn``, or one whose layers move their weights to the input's device when they are used. Parameters that
belong to no such layer are moved by hand (``.to(x)``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import HEADS


def zero_init(layer: nn.Module) -> nn.Module:
    """The layer, its weights at zero. One that is about to be loaded may have none: ComfyUI's have none before."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class SVD(NamedTuple):
    """x = u · diag(s) · vh, per image: [B, M, M], [B, M], [B, M, M], s falling."""

    u: Tensor
    s: Tensor
    vh: Tensor


def decompose(noise: Tensor, tile: int, fixed_signs: bool = False) -> SVD:
    """Singular value decomposition of the noise, its channels tiled into one matrix.

    Runs in fp32 on the CPU whatever the device of ``noise`` (5 ms at 256x256), because the signs of singular vectors
    differ between LAPACKs and GPU libraries; the result is on the device of ``noise``.

    Args:
        noise: [B, C, R, R] with C = tile².
        tile: channels per side of the matrix.
        fixed_signs: make the entry of largest magnitude in each left vector positive.

    Returns:
        SVD of the [B, tile·R, tile·R] matrices.
    """
    matrix = rearrange(noise, "b (i j) h w -> b (i h) (j w)", i=tile)
    u, s, vh = torch.linalg.svd(matrix.to("cpu", torch.float32))
    if fixed_signs:
        largest = u.gather(-2, u.abs().argmax(-2, keepdim=True))  # [B, 1, M]
        sign = torch.where(largest < 0, -1.0, 1.0)
        u, vh = u * sign, vh * sign.mT
    return SVD(u.to(noise.device), s.to(noise.device), vh.to(noise.device))


class MLP(nn.Sequential):
    """Linear, ReLU, Linear."""

    def __init__(self, features_in: int, hidden: int, features_out: int, operations=nn):
        super().__init__(operations.Linear(features_in, hidden), nn.ReLU(), operations.Linear(hidden, features_out))


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens, without bias in the projections to q, k and v."""

    def __init__(self, dim: int, heads: int = HEADS, operations=nn):
        super().__init__()
        self.heads = heads
        self.qkv = operations.Linear(dim, 3 * dim, bias=False)
        self.proj = operations.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] → [B, N, dim]."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(x, "b h n d -> b n (h d)"))


class SingularValueBranch(nn.Module):
    """x̃': the noise with its singular values predicted anew, its singular vectors kept (Stage II of the paper).

    x̃ = φ(U, Σ, Vᵀ), Σ̃ = f(g(x̃)) + Σ, x̃' = U Σ̃ Vᵀ. Rows of Uᵀ and of Vᵀ are the M tokens.
    """

    def __init__(self, size: int, tile: int, fixed_signs: bool, operations=nn):
        super().__init__()
        self.tile, self.fixed_signs = tile, fixed_signs
        self.u_mlp = MLP(size, 64, size, operations)
        self.v_mlp = MLP(size, 64, size, operations)
        self.s_linear = operations.Linear(size, size)
        self.attention = SelfAttention(size, operations=operations)
        self.head = MLP(size, 1024, size, operations)

    def forward(self, noise: Tensor, svd: SVD | None = None) -> Tensor:
        """noise [B, C, R, R] → [B, C, R, R]; ``svd`` is ``decompose(noise, …)`` where that was done before."""
        u, s, vh = svd or decompose(noise, self.tile, self.fixed_signs)
        tokens = self.u_mlp(u.mT) + self.v_mlp(vh) + self.s_linear(s).unsqueeze(1)  # [B, M, M]
        change = self.head(self.attention(tokens).mean(1))  # Σ̃ − Σ, [B, M]
        matrix = (u * change.unsqueeze(-2)) @ vh
        # x + U (Σ̃ − Σ) Vᵀ is U Σ̃ Vᵀ, and in bf16 it leaves x itself alone
        return noise + rearrange(matrix, "b (i h) (j w) -> b (i j) h w", i=self.tile, j=self.tile)


class TextTerm(nn.Module):
    """e = σ(x, E(c)): the noise, normalised per image, with a scale and a shift per channel from the prompt.

    Nothing else of the prompt enters: 2·C numbers (eight for four channels).
    """

    def __init__(self, channels: int, tokens: int, dim: int, operations=nn):
        super().__init__()
        self.linear = operations.Linear(tokens * dim, 2 * channels)

    def forward(self, noise: Tensor, prompt: Tensor) -> Tensor:
        """noise [B, C, R, R], prompt [B, T, D] → [B, C, R, R]."""
        scale, shift = self.linear(prompt.flatten(1))[..., None, None].chunk(2, dim=1)  # [B, C, 1, 1] each
        return F.group_norm(noise, 1, eps=1e-6) * (1 + scale) + shift
