"""CONDITIONING of every family a user may connect: random embeddings in the shapes that ComfyUI stores."""

from __future__ import annotations

import torch

# family: (width of a token, tokens of a short prompt, width of the pooled embedding)
SHAPES = {
    "sdxl": (2048, 77, 1280),
    "sd1": (768, 77, 768),
    "sd2": (1024, 77, 1024),
    "sd3": (4096, 154, 2048),
    "flux": (4096, 256, 768),
    "hunyuan_dit": (1024, 77, 1024),
}


def conditioning(family: str, seed: int = 0, tokens: int | None = None, batch: int = 1) -> list:
    """`[[embedding [batch, tokens, width], {"pooled_output": [batch, pooled], …}]]`; families: `SHAPES`."""
    width, short, pooled = SHAPES[family]
    tokens = short if tokens is None else tokens
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(batch, tokens, width, generator=generator)
    extra = {"pooled_output": torch.randn(batch, pooled, generator=generator)}
    if family == "hunyuan_dit":
        extra["attention_mask"] = torch.ones(batch, tokens, dtype=torch.long)
        extra["conditioning_mt5xl"] = torch.randn(batch, 256, 2048, generator=generator)
        extra["attention_mask_mt5xl"] = torch.ones(batch, 256, dtype=torch.long)
    return [[embedding, extra]]
