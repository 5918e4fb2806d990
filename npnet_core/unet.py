"""A U-Net in which every pixel reads the whole prompt: noise of any size + any number of tokens → golden noise.

It is the network that diffusion models of pictures are made of, at a fraction of the size, because that is whose
answer it learns: the golden noise is the noise plus what one denoising step with guidance adds and its inversion
without guidance leaves. Convolutions are matrix products over the nine neighbours of a pixel: products are exact on
GPUs unless told otherwise, while convolutions run in TF32, and devices would disagree.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import HEAD_WIDTH, UNetConfig
from .errors import InputError
from .layers import zero_init

PATCH = 2  # side, in latent pixels, of what is one pixel to the net


def neighbours(x: Tensor) -> Tensor:
    """[B, H, W, D] → [B, H, W, 9·D]: every pixel with those around it, zeros beyond the border."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat([x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], dim=-1)


class Convolution(nn.Module):
    """3x3, [B, H, W, D] → [B, H, W, D']."""

    def __init__(self, features_in: int, features_out: int, operations=nn):
        super().__init__()
        self.linear = operations.Linear(9 * features_in, features_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(neighbours(x))


class CrossAttention(nn.Module):
    """Every pixel asks all tokens of the prompt."""

    def __init__(self, dim: int, prompt_dim: int, operations=nn):
        super().__init__()
        self.norm = operations.LayerNorm(dim)
        self.q = operations.Linear(dim, dim, bias=False)
        self.kv = operations.Linear(prompt_dim, 2 * dim, bias=False)
        self.proj = operations.Linear(dim, dim)

    def forward(self, x: Tensor, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, H, W, dim], prompt [B, T, prompt_dim], mask [B, 1, 1, T] → [B, H, W, dim]."""
        q = rearrange(self.q(self.norm(x)), "b y x (h d) -> b h (y x) d", d=HEAD_WIDTH)
        k, v = rearrange(self.kv(prompt), "b t (two h d) -> two b h t d", two=2, d=HEAD_WIDTH)
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(answer, "b h (y x) d -> b y x (h d)", y=x.shape[1]))


class FeedForward(nn.Module):
    """A transformer's, but its first layer sees the neighbours: [B, H, W, dim] → [B, H, W, dim]."""

    def __init__(self, dim: int, operations=nn):
        super().__init__()
        self.norm = operations.LayerNorm(dim)
        self.conv = Convolution(dim, 2 * dim, operations)
        self.proj = operations.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(F.gelu(self.conv(self.norm(x))))


class Block(nn.Module):
    """The prompt, then the neighbours, each added to what is there."""

    def __init__(self, dim: int, prompt_dim: int, operations=nn):
        super().__init__()
        self.attention = CrossAttention(dim, prompt_dim, operations)
        self.feed_forward = FeedForward(dim, operations)

    def forward(self, x: Tensor, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, H, W, dim], prompt and mask as for :class:`CrossAttention` → [B, H, W, dim]."""
        x = x + self.attention(x, prompt, mask)
        return x + self.feed_forward(x)


class Down(nn.Module):
    """2x2 pixels become one, and the blocks of that level follow; without ``features_in`` the blocks only."""

    def __init__(self, features_in: int | None, dim: int, blocks: int, prompt_dim: int, operations=nn):
        super().__init__()
        self.merge = None if features_in is None else operations.Linear(4 * features_in, dim)
        self.blocks = nn.ModuleList(Block(dim, prompt_dim, operations) for _ in range(blocks))

    def forward(self, x: Tensor, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, H, W, features_in] → [B, H/2, W/2, dim], from even H and W; without ``features_in`` [B, H, W, dim]
        stays as large as it is. Prompt and mask as for :class:`CrossAttention`."""
        if self.merge is not None:
            x = self.merge(rearrange(x, "b (y i) (x j) d -> b y x (i j d)", i=2, j=2))
        for block in self.blocks:
            x = block(x, prompt, mask)
        return x


class Up(nn.Module):
    """One pixel becomes 2x2, joined with what that level was on the way down."""

    def __init__(self, features_in: int, dim: int, blocks: int, prompt_dim: int, operations=nn):
        super().__init__()
        self.expand = operations.Linear(features_in, 4 * dim)
        self.join = operations.Linear(2 * dim, dim)
        self.blocks = nn.ModuleList(Block(dim, prompt_dim, operations) for _ in range(blocks))

    def forward(self, x: Tensor, before: Tensor, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, H, W, features_in], before [B, 2H, 2W, dim] → [B, 2H, 2W, dim]; prompt and mask as for
        :class:`CrossAttention`."""
        x = rearrange(self.expand(x), "b y x (i j d) -> b (y i) (x j) d", i=2, j=2)
        x = self.join(torch.cat([x, before], dim=-1))
        for block in self.blocks:
            x = block(x, prompt, mask)
        return x


class UNet(nn.Module):
    """golden = noise + U-Net(noise, prompt). Deterministic; the input is never changed; a new net is the identity.

    Weights are drawn from torch's global generator, so seed it before.
    """

    def __init__(self, config: UNetConfig, operations=nn):
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}  # of the file it was loaded from
        widths, patch = config.widths, config.channels * PATCH**2
        prompt_dim = config.prompt_width or widths[-1]
        self.prompt_norm = operations.LayerNorm(config.prompt_dim)
        self.prompt_linear = operations.Linear(config.prompt_dim, prompt_dim)
        self.first = Convolution(patch, widths[0], operations)
        self.downs = nn.ModuleList(
            Down(above, dim, config.blocks, prompt_dim, operations) for above, dim in pairwise([None, *widths])
        )
        self.ups = nn.ModuleList(
            Up(below, dim, config.blocks, prompt_dim, operations) for below, dim in pairwise(reversed(widths))
        )
        self.norm = operations.LayerNorm(widths[0])
        self.last = zero_init(Convolution(widths[0], patch, operations))

    def forward(self, noise: Tensor, prompt: Tensor, prompt_mask: Tensor | None = None) -> Tensor:
        """
        Args:
            noise: [B, C, H, W], unit variance, fp32, any H and W; C is the config's.
            prompt: [B, T, D], finite, any T; D is the config's.
            prompt_mask: [B, T] bool, True for the tokens that count, at least one in each row; the others have no
                influence. None if all count.

        Returns:
            Golden noise [B, C, H, W].

        Raises:
            InputError: if a shape does not fit the config.
        """
        c = self.config
        if noise.ndim != 4 or noise.shape[1] != c.channels or 0 in noise.shape:
            raise InputError(
                f"Noise of shape {list(noise.shape)} came to a net for [B, {c.channels}, H, W]: use this net with the "
                "base model it was trained for."
            )
        if prompt.ndim != 3 or len(prompt) != len(noise) or prompt.shape[1] == 0 or prompt.shape[2] != c.prompt_dim:
            raise InputError(
                f"A prompt embedding of shape {list(prompt.shape)} came to a net for [{len(noise)}, T, "
                f"{c.prompt_dim}]: give one embedding per noise, of the net's base model."
            )
        if prompt_mask is not None:
            if prompt_mask.dtype != torch.bool or prompt_mask.shape != prompt.shape[:2]:
                raise InputError(
                    f"A prompt mask of shape {list(prompt_mask.shape)} and type {prompt_mask.dtype} came to a prompt "
                    f"of {list(prompt.shape[:2])} tokens: give one truth value per token."
                )
            prompt_mask = prompt_mask[:, None, None]  # for every head and pixel
        return noise + self.change(noise, self.prompt_linear(self.prompt_norm(prompt)), prompt_mask)

    def change(self, noise: Tensor, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """golden − noise, [B, C, H, W]; the prompt is projected already, the mask [B, 1, 1, T]."""
        height, width = noise.shape[-2:]
        side = PATCH * 2 ** len(self.ups)  # of a pixel of the lowest level, which the noise is filled up to
        x = F.pad(noise, (0, -width % side, 0, -height % side))
        x = self.first(rearrange(x, "b c (y i) (x j) -> b y x (c i j)", i=PATCH, j=PATCH))
        before = []
        for down in self.downs:
            x = down(x, prompt, mask)
            before.append(x)
        before.pop()  # the lowest level is x itself
        for up in self.ups:
            x = up(x, before.pop(), prompt, mask)
        x = rearrange(self.last(self.norm(x)), "b y x (c i j) -> b c (y i) (x j)", i=PATCH, j=PATCH)
        return x[..., :height, :width]
