"""ComfyUI's own flow models and their text encoders, small and with seeded random weights.

Prompts are as wide as the published ones, so that the families can be told apart; inside everything is narrow.
Which of :data:`FLOW` there are depends on ComfyUI's version.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from importlib import import_module
from inspect import signature

import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.flux.model import FluxParams
from comfy.ldm.wan.vae import WanVAE
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import ClipTarget
from comfy.taesd.taesd import TAESD

from .models import seed_parameters, tiny_patcher, with_weights

VOCABULARY = 512  # ids of the real tokenizers are folded into as many rows
CLIP = {"vocab_size": VOCABULARY, "intermediate_size": 64, "num_hidden_layers": 3}
T5 = {"vocab_size": VOCABULARY, "d_ff": 64, "d_kv": 32, "num_heads": 2, "num_layers": 2}
QWEN = {"vocab_size": VOCABULARY, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
DIT = {"hidden_size": 64, "num_heads": 2, "axes_dim": [8, 12, 12], "depth": 1, "depth_single_blocks": 1}
FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 768, "theta": 10000,
    "context_in_dim": 4096, "mlp_ratio": 4.0, "qkv_bias": True, "guidance_embed": True, **DIT,
}  # fmt: skip
if any(each.name == "txt_ids_dims" for each in fields(FluxParams)):  # since 2026, without a default
    FLUX["txt_ids_dims"] = []
PROMPT_LAYER = {"in_features": 4096, "out_features": 128}
ROPE = {f"rope_{axis}_extrapolation_ratio": 1.0 for axis in "hwt"}


@dataclass(frozen=True)
class Tiny:
    """One family: the class in ``comfy.supported_models``, its network's shape, tokenizer and text model.

    Args:
        text: module in ``comfy.text_encoders``, tokenizer, text model or the function that makes its class.
        encoders: encoder → the shape of it.
        options: of that function.
    """

    config: str
    network: dict
    text: tuple[str, str, str]
    encoders: dict[str, dict]
    options: dict = field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Whether this ComfyUI has it."""
        return hasattr(comfy.supported_models, self.config)


FLOW = {
    "sd3": Tiny(
        "SD3",
        {"in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "adm_in_channels": 2048, "qk_norm": "rms"}
        | {"num_patches": 256, "pos_embed_max_size": 16, "pos_embed_scaling_factor": None}
        | {"context_embedder_config": {"target": "torch.nn.Linear", "params": PROMPT_LAYER}},
        ("sd3_clip", "SD3Tokenizer", "sd3_clip"),
        {"clip_l": CLIP, "clip_g": CLIP, "t5xxl": T5},
    ),
    "flux": Tiny("Flux", FLUX, ("flux", "FluxTokenizer", "flux_clip"), {"clip_l": CLIP, "t5xxl": T5}),
    "schnell": Tiny(
        "FluxSchnell", FLUX | {"guidance_embed": False}, ("flux", "FluxTokenizer", "flux_clip"),
        {"clip_l": CLIP, "t5xxl": T5},
    ),
    "z-image": Tiny(
        "ZImage",
        {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 2560, "n_layers": 1}
        | {"n_refiner_layers": 1, "n_heads": 8, "n_kv_heads": 8, "axes_dims": [8, 12, 12], "axes_lens": [1536, 64, 64]}
        | {"rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0, "qk_norm": True, "z_image_modulation": True}
        | {"time_scale": 1000.0, "pad_tokens_multiple": 32},
        ("z_image", "ZImageTokenizer", "te"),
        {"qwen3_4b": QWEN | {"num_hidden_layers": 3}},
    ),
    "qwen-image": Tiny(
        "QwenImage",
        {"image_model": "qwen_image", "num_layers": 1, "attention_head_dim": 32, "num_attention_heads": 2}
        | {"axes_dims_rope": (8, 12, 12)},
        ("qwen_image", "QwenImageTokenizer", "te"),
        {"qwen25_7b": QWEN | {"num_hidden_layers": 1}},
    ),
    "krea-2": Tiny(
        "Krea2",  # 480 layers of 64 for 12 of 2560
        {"image_model": "krea2", "features": 64, "heads": 2, "kvheads": 1, "layers": 1, "multiplier": 2}
        | {"txtlayers": 480, "txtdim": 64, "txtheads": 1, "txtkvheads": 1},
        ("krea2", "Krea2Tokenizer", "te"),
        {"qwen3vl_4b": QWEN | {"num_hidden_layers": 36}},  # it taps into the 35th
    ),
    "anima": Tiny(
        "Anima",
        {"image_model": "anima", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16}
        | {"num_heads": 2, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64}
        | {"num_blocks": 1, "pos_emb_cls": "rope3d", "use_adaln_lora": True, "adaln_lora_dim": 16}
        | {"rope_enable_fps_modulation": False}
        | ROPE,
        ("anima", "AnimaTokenizer", "te"),
        {"qwen3_06b": QWEN | {"num_hidden_layers": 1}},
    ),
}  # fmt: skip


@with_weights()
def tiny_flow(name: str, seed: int = 0, **changes) -> ModelPatcher:
    """MODEL of a family of :data:`FLOW`, with changes to its network's shape."""
    tiny = FLOW[name]
    config = getattr(comfy.supported_models, tiny.config)(tiny.network)
    config.unet_config = tiny.network | changes  # without what UNets are told
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device="cpu")
    for part, buffer in model.diffusion_model.named_buffers():
        if part == "pos_embed":  # SD3's comes from its file
            buffer.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
    return tiny_patcher(model, seed, gain=1.0)


@with_weights()
def tiny_flow_clip(name: str, seed: int = 0, **changes: dict) -> comfy.sd.CLIP:
    """CLIP of a family of :data:`FLOW`: its tokenizer and text models, these with few layers and a small vocabulary.

    `changes` are of their shapes, by encoder.
    """
    tiny = FLOW[name]
    shapes = {key: shape | changes.get(key, {}) for key, shape in tiny.encoders.items()}
    file, tokenizer, text_model = tiny.text
    module = import_module(f"comfy.text_encoders.{file}")
    clip = comfy.sd.CLIP(
        ClipTarget(getattr(module, tokenizer), getattr(module, text_model)()),
        model_options={"dtype": torch.float32} | {f"{key}_model_config": shape for key, shape in shapes.items()},
    )
    for module in list(clip.cond_stage_model.modules()):
        if hasattr(module, "visual"):
            del module.visual  # what reads pictures is of full size
    seed_parameters(clip.cond_stage_model, seed, gain=1.0)
    for embedding in clip.cond_stage_model.modules():
        if getattr(embedding, "num_embeddings", None) == VOCABULARY:
            embedding.register_forward_pre_hook(folded)
    return clip


def tiny_flow_vae(name: str, seed: int = 0) -> comfy.sd.VAE:
    """VAE of a family of :data:`FLOW`: TAESD, or Wan's for latents that are films; 8 pixels to a latent cell."""
    films = getattr(comfy.supported_models, FLOW[name].config).latent_format.latent_dimensions == 3
    narrow = "image_channels" in signature(WanVAE).parameters  # since when ComfyUI reads the width off the file
    wan = {"dim": 8 if narrow else 96, "z_dim": 16, "temperal_downsample": [False, True, True]}
    with with_weights():
        module = WanVAE(**wan) if films else TAESD(latent_channels=16)
    seed_parameters(module, seed, gain=1.0)
    return comfy.sd.VAE(sd=module.state_dict())


def folded(embedding: torch.nn.Embedding, args: tuple) -> tuple:
    """Tokens of a large vocabulary, as rows of a small one."""
    tokens, *others = args
    return (tokens % embedding.num_embeddings, *others)
