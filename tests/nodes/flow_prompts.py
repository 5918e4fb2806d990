"""CONDITIONING of every flow family, from ComfyUI's own tokenizers and text models."""

from __future__ import annotations

from functools import cache

from tests.nodes.graphs import call
from tests.nodes.tiny_pack.flow import FLOW, tiny_flow_clip

HERE = [name for name, tiny in FLOW.items() if tiny.here]
PROMPT = "a red fox in the snow, (oil painting:1.2)"


@cache
def flow_prompts(name: str) -> tuple[list, list]:
    """Positive and negative conditioning of a family of FLOW; never change them."""
    clip = tiny_flow_clip(name)
    return tuple(call("CLIPTextEncode", clip=clip, text=text)[0] for text in (PROMPT, "blurry"))
