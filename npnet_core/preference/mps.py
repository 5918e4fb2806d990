"""MPS, the multi-dimensional preference score: an image looks at those words of its prompt that a condition names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .architecture import Architecture
from .clip import TextCache, clip_config
from .pixels import at_least_fp32, crop_to_square
from .scorer import PixelScorer
from .tokens import Tokenizer

# The published condition for overall preference.
CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
THRESHOLD = 0.01  # a word counts if it is at least so similar to the condition, relative to the most similar one
LAYERS = 4
HEAD = 64  # width of a head; all heads share one key and one value


class CrossBlock(nn.Module):
    """Attention to the prompt beside a gated feed-forward layer, both of the same normalised input, added to it."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * HEAD, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(width, 8 * width, bias=False), Gate(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x: Tensor, prompt: Tensor, counts: Tensor) -> Tensor:
        y = self.norm(x)
        k, v = self.to_kv(prompt).chunk(2, dim=-1)
        return x + self.to_out(attend(self.to_q(y), k, v, counts)) + self.ff(y)


class SelfBlock(nn.Module):
    """The same with attention among the image's own tokens, which know their places by rotation."""

    def __init__(self, width: int):
        super().__init__()
        self.parts = (width, HEAD, HEAD, 8 * width)
        self.norm = nn.LayerNorm(width, bias=False)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.parts), bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_out = nn.Sequential(Gate(), nn.Linear(4 * width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, ff = self.fused_attn_ff_proj(self.norm(x)).split(self.parts, dim=-1)
        return x + self.attn_out(attend(rotate(q), rotate(k), v)) + self.ff_out(ff)


class Gate(nn.Module):
    """SwiGLU: [B, N, 2·D] → [B, N, D]."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value


def attend(q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None = None) -> Tensor:
    """q [B, N, heads·64], k and v [B, M, 64] → [B, N, heads·64]; of the M only those that count, a bool [B, M]."""
    q = rearrange(q, "b n (h d) -> b h n d", d=HEAD)
    k, v = (x[:, None].expand(-1, q.shape[1], -1, -1) for x in (k, v))
    mask = None if counts is None else counts[:, None, None]
    return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), "b h n d -> b n (h d)")


def rotate(x: Tensor) -> Tensor:
    """Rotary positions over the tokens of x [B, N, heads·64]: coordinates i and i + 32 of a head form a plane."""
    half = HEAD // 2
    speed = 10000 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[1], device=x.device)[:, None, None] * speed  # [N, 1, 32]
    a, b = rearrange(at_least_fp32(x), "b n (h half d) -> half b n h d", half=2, d=half)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(2).to(x.dtype)


class MPS(nn.Module):
    """A CLIP whose features are taken at every token, and blocks in which the image's meet the prompt's."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        from transformers import CLIPModel

        self.architecture = architecture
        self.clip = CLIPModel(clip_config(architecture))
        width = architecture.embed_dim
        self.layers = nn.ModuleList(nn.ModuleList([CrossBlock(width), SelfBlock(width)]) for _ in range(LAYERS))

    def text_features(self, tokens: Tensor) -> Tensor:
        """Ids [B, T] → [B, T + 1, D]: each token's, and behind them the end token's."""
        text = self.clip.text_model(tokens.to(self.clip.text_projection.weight.device))
        every = torch.cat([text.last_hidden_state, text.pooler_output[:, None]], dim=1)
        return at_least_fp32(self.clip.text_projection(every))

    def forward(self, pixels: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
        """Scores [B] of normalised pixels [B, 3, S, S] with text features [B, T + 1, D] and [1, T + 1, D]."""
        weight = self.clip.visual_projection.weight
        words, end = prompt[:, :-1], prompt[:, -1]
        similar = (words @ condition[0, :-1].T).amax(-1)  # [B, T]
        # The released code divides by the maximum over the batch, so that a score depends on its neighbours.
        counts = similar / similar.amax(-1, keepdim=True) > THRESHOLD
        x = self.clip.visual_projection(self.clip.vision_model(pixels.to(weight)).last_hidden_state)
        for cross, own in self.layers:
            x = own(cross(x, words.to(weight), counts))
        return self.clip.logit_scale.exp() * F.cosine_similarity(at_least_fp32(x[:, 0]), end, dim=-1)


class MPSScorer(PixelScorer):
    model: MPS
    pixels = staticmethod(crop_to_square)

    def __init__(self, kind: str, model: MPS, tokenize: Tokenizer):
        super().__init__(kind, model)
        self.text = TextCache(lambda prompts: model.text_features(tokenize(prompts)))

    def look(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        device = self.model.clip.logit_scale.device
        return self.model(pixels, self.text(prompts).to(device), self.text([CONDITION]).to(device))
