"""Architectures that the U-Net was chosen against, for small latents: they are measured, not shipped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from npnet_core.config import HEAD_WIDTH
from npnet_core.unet import PATCH, Convolution, CrossAttention, FeedForward


class SelfAttention(nn.Module):
    """Every patch asks all patches."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm(x)), "b y x (three h d) -> three b h (y x) d", three=3, d=HEAD_WIDTH)
        answer = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(answer, "b h (y x) d -> b y x (h d)", y=x.shape[1]))


def pointwise(dim: int) -> nn.Module:
    """A transformer's feed-forward layers."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class Transformer(nn.Module):
    """Patches at one resolution with a place each, attention among them and to the prompt.

    Args:
        side: of the latents, in latent pixels: places are learnt, so it takes one size only.
        convolutions: whether the feed-forward layers see the neighbours.
    """

    def __init__(self, channels: int, side: int, prompt_dim: int, dim: int, blocks: int, convolutions: bool):
        super().__init__()
        patch = channels * PATCH**2
        self.prompt = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, dim))
        self.first, self.last = nn.Linear(patch, dim), nn.Linear(dim, patch)
        self.place = nn.Parameter(0.02 * torch.randn(side // PATCH, side // PATCH, dim))
        layers = FeedForward if convolutions else pointwise
        self.blocks = nn.ModuleList(
            nn.ModuleList([SelfAttention(dim), CrossAttention(dim, dim), layers(dim)]) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, noise: Tensor, prompt: Tensor) -> Tensor:
        """[B, C, side, side], [B, T, D] → golden noise."""
        prompt = self.prompt(prompt)
        x = self.first(rearrange(noise, "b c (y i) (x j) -> b y x (c i j)", i=PATCH, j=PATCH)) + self.place
        for attention, cross_attention, layers in self.blocks:
            x = x + attention(x)
            x = x + cross_attention(x, prompt)
            x = x + layers(x)
        change = self.last(self.norm(x))
        return noise + rearrange(change, "b y x (c i j) -> b c (y i) (x j)", i=PATCH, j=PATCH)


class ModulatedUNet(nn.Module):
    """Two levels of convolutions; the prompt's mean scales and shifts features, and nothing else of it enters."""

    def __init__(self, channels: int, prompt_dim: int, widths: tuple[int, int]):
        super().__init__()
        patch = channels * PATCH**2
        high, low = widths
        self.prompt = nn.Sequential(nn.LayerNorm(prompt_dim), nn.Linear(prompt_dim, low), nn.GELU())
        self.first, self.last = Convolution(patch, high), Convolution(high, patch)
        self.merge, self.expand = nn.Linear(4 * high, low), nn.Linear(low, 4 * high)
        self.layers = nn.ModuleList(FeedForward(dim) for dim in (high, low, low, high))
        self.modulation = nn.ModuleList(nn.Linear(low, 2 * dim) for dim in (high, low, low, high))
        self.norm = nn.LayerNorm(high)
        nn.init.zeros_(self.last.linear.weight)
        nn.init.zeros_(self.last.linear.bias)

    def forward(self, noise: Tensor, prompt: Tensor) -> Tensor:
        """[B, C, H, W], H and W multiples of 4, [B, T, D] → golden noise."""
        pooled = self.prompt(prompt).mean(1)

        def block(i: int, x: Tensor) -> Tensor:
            scale, shift = self.modulation[i](pooled)[:, None, None].chunk(2, -1)
            return x + self.layers[i](x * (1 + scale) + shift)

        x = self.first(rearrange(noise, "b c (y i) (x j) -> b y x (c i j)", i=PATCH, j=PATCH))
        before = block(0, x)
        x = self.merge(rearrange(before, "b (y i) (x j) d -> b y x (i j d)", i=2, j=2))
        x = self.expand(block(2, block(1, x)))
        x = block(3, before + rearrange(x, "b y x (i j d) -> b (y i) (x j) d", i=2, j=2))
        return noise + rearrange(self.last(self.norm(x)), "b y x (c i j) -> b c (y i) (x j)", i=PATCH, j=PATCH)
