"""What the original code of Stable Diffusion calls the modules of diffusers' UNet."""

from __future__ import annotations

import re

OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
MIDDLE = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}
RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def original_name(name: str, layers_per_block: int, attention: bool) -> str:
    """The original name of a UNet's module.

    Args:
        name: in diffusers, such as ``down_blocks.1.attentions.0.proj_in``.
        layers_per_block: the UNet's; each block of the original counts its layers and its resampling in one row.
        attention: whether the module's block has attentions, behind which an upsampler stands.
    """
    if name.startswith("mid_block."):
        _, kind, index, rest = name.split(".", 3)
        return f"middle_block.{MIDDLE[f'{kind}.{index}']}.{RESNET.get(rest, rest)}"
    if not (match := BLOCK.fullmatch(name)):
        return OUTSIDE.get(name, name)
    way, block, kind, layer, rest = match.groups()
    first = int(block) * (layers_per_block + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers_per_block + 1}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers_per_block}.{1 + attention}.conv"
    row = f"input_blocks.{1 + first + int(layer)}" if way == "down" else f"output_blocks.{first + int(layer)}"
    return f"{row}.{int(kind == 'attentions')}.{RESNET.get(rest, rest)}"
