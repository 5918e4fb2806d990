"""Swin transformer (Liu et al. 2021) with the parameter names of the published files, as a map of features."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # made while ComfyUI infers, it may be needed for training later
def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels in a window: [window⁴], query-major."""
    y, x = torch.meshgrid(*2 * [torch.arange(window, device="cpu")], indexing="ij")
    position = torch.stack([y.flatten(), x.flatten()])  # [2, N]
    offset = position[:, :, None] - position[:, None, :] + window - 1  # [2, N, N], each 0 … 2·window − 2
    return (offset[0] * (2 * window - 1) + offset[1]).flatten()


@lru_cache(maxsize=16)
def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """0 where two pixels of a rolled window were neighbours before the roll, −100 elsewhere: [windows, 1, N, N]."""
    band = torch.zeros(side, dtype=torch.long, device="cpu")
    band[side - window :] = 1
    band[side - shift :] = 2
    region = 3 * band[:, None] + band[None, :]
    region = rearrange(region, "(y i) (x j) -> (y x) (i j)", i=window, j=window)
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, -100.0).unsqueeze(1)


class WindowAttention(nn.Module):
    """Self-attention inside windows of window² pixels, with a learned bias per relative position."""

    def __init__(self, dim: int, heads: int, side: int, window: int, shift: int, operations=nn):
        super().__init__()
        self.heads, self.side, self.window, self.shift = heads, side, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = operations.Linear(dim, 3 * dim)
        self.proj = operations.Linear(dim, dim)

    def bias(self, x: Tensor) -> Tensor:
        """What is added to the attention logits: [1 or windows, heads, N, N], like ``x`` in device and dtype."""
        index = relative_position_index(self.window).to(x.device)
        table = self.relative_position_bias_table.to(x)
        bias = table[index].unflatten(0, (self.window**2, -1)).permute(2, 0, 1).unsqueeze(0)
        return bias + shift_mask(self.side, self.window, self.shift).to(x) if self.shift else bias

    def forward(self, x: Tensor) -> Tensor:
        """[B, side, side, dim] → [B, side, side, dim]."""
        batch = len(x)
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        x = rearrange(x, "b (y i) (x j) c -> (b y x) (i j) c", i=self.window, j=self.window)
        q, k, v = rearrange(self.qkv(x), "n p (three h d) -> three n h p d", three=3, h=self.heads)
        bias = self.bias(x)
        bias = bias.expand(len(x), -1, -1, -1) if len(bias) == 1 else bias.repeat(batch, 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self.proj(rearrange(x, "n h p d -> n p (h d)"))
        x = rearrange(
            x,
            "(b y x) (i j) c -> b (y i) (x j) c",
            b=batch,
            y=self.side // self.window,
            i=self.window,
        )
        return x.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else x


class FeedForward(nn.Module):
    def __init__(self, dim: int, operations=nn):
        super().__init__()
        self.fc1 = operations.Linear(dim, 4 * dim)
        self.fc2 = operations.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and feed-forward, each before a residual connection that stochastic depth may cut in training."""

    def __init__(self, dim: int, heads: int, side: int, window: int, shift: int, drop_path: float, operations=nn):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = operations.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, side, window, shift, operations)
        self.norm2 = operations.LayerNorm(dim)
        self.mlp = FeedForward(dim, operations)

    def keep(self, x: Tensor) -> Tensor:
        """Drop the whole residual of an image with probability ``drop_path``, while training only."""
        if not self.training or self.drop_path == 0:
            return x
        alive = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop_path
        return x * alive / (1 - self.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.keep(self.attn(self.norm1(x)))
        return x + self.keep(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """2x2 neighbours become one pixel of twice the width: [B, H, W, dim] → [B, H/2, W/2, 2·dim]."""

    def __init__(self, dim: int, operations=nn):
        super().__init__()
        self.norm = operations.LayerNorm(4 * dim)
        self.reduction = operations.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(rearrange(x, "b (h i) (w j) c -> b h w (j i c)", i=2, j=2)))


class Stage(nn.Module):
    """Blocks over a map [B, side, side, dim], made of the one before, [B, 2·side, 2·side, dim/2], unless ``first``."""

    def __init__(
        self,
        dim: int,
        heads: int,
        side: int,
        window: int,
        drop_paths: list[float],
        first: bool,
        operations=nn,
    ):
        super().__init__()
        window = min(window, side)
        self.downsample = nn.Identity() if first else PatchMerging(dim // 2, operations)
        self.blocks = nn.Sequential(
            *(
                # every second block shifts its windows by half, unless one window covers the map
                Block(dim, heads, side, window, window // 2 if i % 2 and window < side else 0, drop, operations)
                for i, drop in enumerate(drop_paths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class PatchEmbed(nn.Module):
    """4x4 patches to vectors: [B, 3, S, S] → [B, S/4, S/4, dim].

    A matrix product, not a convolution: convolutions run in TF32 on GPUs unless told otherwise, and devices would
    disagree.
    """

    def __init__(self, dim: int, operations=nn):
        super().__init__()
        self.proj = operations.Linear(3 * 4 * 4, dim)
        self.norm = operations.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(rearrange(x, "b c (h i) (w j) -> b h w (c i j)", i=4, j=4)))


class Swin(nn.Module):
    """Features of a picture: [B, 3, size, size] → [B, g, g, features], g = size / (4·2^(stages−1)), channels last."""

    def __init__(
        self,
        size: int,
        dim: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: int,
        drop_path: float,
        operations=nn,
    ):
        super().__init__()
        drops = [drop_path * i / max(1, sum(depths) - 1) for i in range(sum(depths))]  # deeper blocks drop more
        self.patch_embed = PatchEmbed(dim, operations)
        self.layers = nn.Sequential(
            *(
                Stage(
                    dim * 2**i,
                    heads[i],
                    size // (4 * 2**i),
                    window,
                    drops[sum(depths[:i]) : sum(depths[: i + 1])],
                    i == 0,
                    operations,
                )
                for i in range(len(depths))
            )
        )
        self.norm = operations.LayerNorm(dim * 2 ** (len(depths) - 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layers(self.patch_embed(x)))
