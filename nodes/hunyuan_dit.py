"""Where diffusers' weights of a Hunyuan-DiT are in ComfyUI's, as comfy.utils says it of other models."""

from __future__ import annotations

import comfy.utils

ALONE = {
    "text_embedding_padding": "text_embedding_padding",
    "time_extra_emb.pooler.positional_embedding": "pooler.positional_embedding",
}
OUTSIDE = {
    "text_embedder.linear_1": "mlp_t5.0",
    "text_embedder.linear_2": "mlp_t5.2",
    "pos_embed.proj": "x_embedder.proj",
    "time_extra_emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_extra_emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    **{f"time_extra_emb.pooler.{name}_proj": f"pooler.{name}_proj" for name in "kqvc"},
    "time_extra_emb.style_embedder": "style_embedder",
    "time_extra_emb.extra_embedder.linear_1": "extra_embedder.0",
    "time_extra_emb.extra_embedder.linear_2": "extra_embedder.2",
    "proj_out": "final_layer.linear",
}
BLOCK = {
    "norm1.norm": "norm1",
    "norm1.linear": "default_modulation.1",
    "norm2": "norm3",
    "norm3": "norm2",
    "attn1.norm_q": "attn1.q_norm",
    "attn1.norm_k": "attn1.k_norm",
    "attn1.to_out.0": "attn1.out_proj",
    "attn2.norm_q": "attn2.q_norm",
    "attn2.norm_k": "attn2.k_norm",
    "attn2.to_q": "attn2.q_proj",
    "attn2.to_out.0": "attn2.out_proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
    "skip_norm": "skip_norm",
    "skip_linear": "skip_linear",
}
JOINED = {"attn1.Wqkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"), "attn2.kv_proj": ("attn2.to_k", "attn2.to_v")}


def hunyuan_dit_to_diffusers(config: dict) -> dict[str, str | tuple]:
    """A weight's name in diffusers → its key in ComfyUI's network, or (key, part, what turns it round).

    Args:
        config: the model's ``unet_config``.
    """
    width, found = config["hidden_size"], dict[str, str | tuple](ALONE)
    for kind in ("weight", "bias"):
        for name, key in OUTSIDE.items():
            found[f"{name}.{kind}"] = f"{key}.{kind}"
        last = f"final_layer.adaLN_modulation.1.{kind}"  # shift and scale, in diffusers scale and shift
        found[f"norm_out.linear.{kind}"] = (last, None, comfy.utils.swap_scale_shift)
        for block in (f"blocks.{i}" for i in range(config["depth"])):
            for name, key in BLOCK.items():
                found[f"{block}.{name}.{kind}"] = f"{block}.{key}.{kind}"
            for key, names in JOINED.items():
                for i, name in enumerate(names):
                    found[f"{block}.{name}.{kind}"] = (f"{block}.{key}.{kind}", (0, i * width, width))
    return found
