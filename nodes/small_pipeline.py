"""Load Small Pipeline: a Stable Diffusion of any size, from a diffusers folder, as ordinary MODEL, CLIP and VAE.

ComfyUI's own loaders tell models by their published sizes, so none of them takes a smaller one (0.33.0):

- MODEL: ``model_config_from_unet`` of comfy/model_detection.py finds no class of comfy/supported_models.py whose
  ``context_dim`` and ``model_channels`` are the file's; from a diffusers file,
  ``model_config_from_diffusers_unet`` compares all of the shape with a list of published ones. And ``UNetModel``
  multiplies ``model_channels`` by whole numbers only (see :class:`Multiple`).
- CLIP: ``detect_te_model`` of comfy/sd.py knows encoders by their keys, and every one of them is built in its published
  width, with CLIP's own vocabulary.
- VAE: ``comfy.sd.VAE`` begins with 128 channels at three or four levels, and ``convert_vae_state_dict`` of
  comfy/diffusers_convert.py counts the levels from four.

What is built here is of ComfyUI's own classes, with ComfyUI's own names for diffusers' keys.
"""

from __future__ import annotations

import json
import os
import re
from functools import partial
from typing import ClassVar

import comfy.diffusers_convert
import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from comfy_api.latest import io
from torch import Tensor

from ..npnet_core.errors import InputError
from ..npnet_core.tensorfile import read_tensors
from .folders import fingerprint
from .versions import known, search_aliases

FOLDER = "diffusers"
INDEX = "model_index.json"
WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
EXPECTED = {  # part → entries of its config that ComfyUI's classes take for granted
    "unet": {
        "_class_name": "UNet2DConditionModel", "mid_block_type": "UNetMidBlock2DCrossAttn", "act_fn": "silu",
        "time_cond_proj_dim": None, "class_embed_type": None, "addition_embed_type": None, "norm_num_groups": 32,
        "resnet_time_scale_shift": "default", "transformer_layers_per_block": 1,
    },
    "vae": {
        "_class_name": "AutoencoderKL", "act_fn": "silu", "norm_num_groups": 32, "mid_block_add_attention": True,
        "use_quant_conv": True, "use_post_quant_conv": True, "in_channels": 3, "out_channels": 3,
    },
    "text_encoder": {"model_type": "clip_text_model"},
    "scheduler": {"beta_schedule": "scaled_linear", "trained_betas": None, "rescale_betas_zero_snr": False},
}  # fmt: skip
PREDICTIONS = {"epsilon": ModelType.EPS, "v_prediction": ModelType.V_PREDICTION}


class NPNetSmallPipelineLoad(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetSmallPipelineLoad",
            display_name="Load Small Pipeline",
            category="NPNet",
            description="Loads a Stable Diffusion of any size from a diffusers folder, such as the tiny one that npnet "
            "demo --comfyui puts there. For models of published size use ComfyUI's own loaders.",
            is_experimental=True,
            **search_aliases("shapes world, tiny model, demo, diffusers folder, 小模型, 演示"),
            inputs=[
                io.Combo.Input(
                    "pipeline",
                    options=pipelines(),
                    tooltip="A folder in models/diffusers that holds a Stable Diffusion with one text encoder.",
                )
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="For every sampler."),
                io.Clip.Output(display_name="CLIP", tooltip="For CLIP Text Encode."),
                io.Vae.Output(display_name="VAE", tooltip="For VAE Decode and VAE Encode."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, pipeline: str) -> str:
        folder = pipeline_path(pipeline)
        return ":".join(fingerprint(os.path.join(folder, part, file)) for part, file in WEIGHTS.items())

    @classmethod
    def execute(cls, pipeline: str) -> io.NodeOutput:
        folder = pipeline_path(pipeline)
        if read_json(os.path.join(folder, INDEX)).get("_class_name") != "StableDiffusionPipeline":
            raise InputError(f"{pipeline} is no StableDiffusionPipeline: choose a folder of one.")
        configs = {part: read_config(folder, part) for part in EXPECTED}
        weights = {part: read_tensors(os.path.join(folder, part, file))[0] for part, file in WEIGHTS.items()}
        return io.NodeOutput(
            load_model(configs["unet"], configs["scheduler"], configs["vae"], weights["unet"]),
            load_clip(configs["text_encoder"], os.path.join(folder, "tokenizer"), weights["text_encoder"]),
            load_vae(configs["vae"], weights["vae"]),
        )


def pipelines() -> list[str]:
    """Names of the folders below models/diffusers that hold a pipeline."""
    found = []
    for top in folder_paths.get_folder_paths(FOLDER):
        for root, folders, files in os.walk(top, followlinks=True):
            folders.sort()
            if INDEX in files:
                found.append(os.path.relpath(root, top))
    return found


def pipeline_path(name: str) -> str:
    """
    Raises:
        InputError: if there is no such folder; a saved workflow may name any.
    """
    if name in pipelines():
        for top in folder_paths.get_folder_paths(FOLDER):
            if os.path.isfile(os.path.join(top, name, INDEX)):
                return os.path.join(top, name)
    names = ", ".join(pipelines()) or "none"
    raise InputError(f"There is no pipeline {name} in models/{FOLDER}: put it there or choose one of these ({names}).")


def read_json(path: str) -> dict:
    """
    Raises:
        InputError: if it is missing or no object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): get the pipeline's folder again, whole.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no object: get the pipeline's folder again.")
    return values


def read_config(folder: str, part: str) -> dict:
    """The config of one part.

    Raises:
        InputError: if ComfyUI's classes cannot be what it says.
    """
    config = read_json(os.path.join(folder, part, "scheduler_config.json" if part == "scheduler" else "config.json"))
    for key, expected in EXPECTED[part].items():
        if config.get(key, expected) != expected:
            raise InputError(
                f"The {part} of {folder} has {key} = {config[key]!r}, where ComfyUI's network has {expected!r}: "
                "choose another pipeline."
            )
    return config


class Multiple(float):
    """A part of a whole number of channels: ``Multiple(1.5) * 64`` is the whole number 96.

    ``UNetModel`` multiplies, and no published model has another multiple than a whole one.
    """

    def __mul__(self, other: int) -> int:
        return round(float(self) * other)

    __rmul__ = __mul__


def load_model(unet: dict, scheduler: dict, vae: dict, weights: dict[str, Tensor]) -> ModelPatcher:
    """MODEL, in single precision: fp16 gains nothing at this size.

    Args:
        unet, scheduler, vae: the parts' configs.
        weights: of the UNet, under diffusers' keys.
    """
    widths, layers = unet["block_out_channels"], unet["layers_per_block"]
    depths = [int("CrossAttn" in block) for block in unet["down_block_types"]]
    heads = unet["attention_head_dim"]  # diffusers' old name for their number
    heads = heads if isinstance(heads, list) else [heads] * len(widths)
    per_head = {width // number for width, number in zip(widths, heads, strict=True)}
    if len(per_head) > 1 or unet["down_block_types"][::-1] != [
        block.replace("Up", "Down") for block in unet["up_block_types"]
    ]:
        raise InputError(
            f"The unet has blocks {unet['down_block_types']} with {heads} heads, where ComfyUI's has heads of one "
            "width, and the same blocks on the way down and up: choose another pipeline."
        )
    shape = {
        "image_size": unet["sample_size"],
        "in_channels": unet["in_channels"],
        "out_channels": unet["out_channels"],
        "model_channels": widths[0],
        "channel_mult": tuple(Multiple(width / widths[0]) for width in widths),
        "num_res_blocks": [layers] * len(widths),
        "transformer_depth": [depth for depth in depths for _ in range(layers)],
        "transformer_depth_output": [depth for depth in depths for _ in range(layers + 1)],
        "transformer_depth_middle": 1,
        "context_dim": unet["cross_attention_dim"],
        "use_linear_in_transformer": unet["use_linear_projection"],
        "adm_in_channels": None,
        "use_spatial_transformer": True,
        "use_temporal_attention": False,
        "legacy": False,
        "use_checkpoint": False,
    }

    class Small(comfy.supported_models_base.BASE):
        unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": per_head.pop()}
        sampling_settings: ClassVar = {
            "linear_start": scheduler["beta_start"],
            "linear_end": scheduler["beta_end"],
            "timesteps": scheduler["num_train_timesteps"],
        }
        latent_format = partial(comfy.latent_formats.SD15, scale_factor=vae["scaling_factor"])

        def model_type(self, state_dict, prefix=""):
            return PREDICTIONS[scheduler["prediction_type"]]

    if scheduler["prediction_type"] not in PREDICTIONS:
        raise InputError(
            f"The model predicts {scheduler['prediction_type']!r}, and this node knows {' and '.join(PREDICTIONS)}: "
            "choose another pipeline."
        )
    config = Small(shape)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    weights = {names.get(key, key): weight.float() for key, weight in weights.items()}
    check_keys("unet", weights, model.diffusion_model)
    # ComfyUI's dynamic one where that is on: read now, for main.py binds it anew
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    model.load_model_weights(weights, "", **assigned(model.load_model_weights, patcher))
    return patcher


def load_clip(encoder: dict, tokenizer: str, weights: dict[str, Tensor]) -> comfy.sd.CLIP:
    """CLIP, whose prompts are cut into chunks of as many tokens as the encoder has places.

    Args:
        encoder: its config.
        tokenizer: the folder of its vocabulary.
        weights: of the encoder, under transformers' keys, with or without ``text_model.``.
    """
    from transformers import CLIPTokenizerFast

    length = encoder["max_position_embeddings"]
    special = {name: encoder[f"{key}_token_id"] for name, key in (("start", "bos"), ("end", "eos"), ("pad", "pad"))}

    class Words(SDTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data={}):  # noqa: B006, as ComfyUI calls it
            super().__init__(
                tokenizer,
                length,
                embedding_directory=embedding_directory,
                embedding_size=encoder["hidden_size"],
                tokenizer_class=CLIPTokenizerFast,
                pad_token=special["pad"],
                tokenizer_data=tokenizer_data,
            )

    class Encoder(SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
            super().__init__(
                device,
                length,
                textmodel_json_config=dict(encoder),
                dtype=dtype,
                special_tokens=special,
                return_projected_pooled=False,
                model_options=model_options,
            )

    target = comfy.supported_models_base.ClipTarget(
        partial(SD1Tokenizer, tokenizer=Words), partial(SD1ClipModel, clip_model=Encoder)
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        model_options={"dtype": torch.float32},
    )
    transformer = clip.cond_stage_model.clip_l.transformer
    weights = {f"text_model.{key.removeprefix('text_model.')}": weight.float() for key, weight in weights.items()}
    words = "text_model.embeddings.token_embedding.weight"
    if words in weights:  # the encoder has rows for CLIP's own vocabulary; a smaller one leaves the rest unused
        rows = transformer.text_model.embeddings.token_embedding.num_embeddings
        weights[words] = torch.cat([weights[words], weights[words].new_zeros(rows, weights[words].shape[1])])[:rows]
    check_keys("text_encoder", weights, transformer, but=("text_projection.weight",))
    clip.load_sd(weights)
    return clip


def load_vae(vae: dict, weights: dict[str, Tensor]) -> comfy.sd.VAE:
    """VAE.

    Args:
        vae: its config.
        weights: under diffusers' keys.
    """
    if vae.get("shift_factor"):
        raise InputError(f"The vae shifts latents by {vae['shift_factor']}: choose a pipeline whose vae does not.")
    widths = vae["block_out_channels"]
    shape = {
        "double_z": True,
        "z_channels": vae["latent_channels"],
        "resolution": vae["sample_size"],
        "in_channels": 3,
        "out_ch": 3,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": vae["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    surplus = 4 - len(widths)  # levels by which ComfyUI's table, made for four, counts too high

    def counted(key: str) -> str:
        return re.sub(r"^decoder\.up\.(\d+)", lambda found: f"decoder.up.{int(found[1]) - surplus}", key)

    weights = comfy.diffusers_convert.convert_vae_state_dict({key: value.float() for key, value in weights.items()})
    weights = {counted(key): weight for key, weight in weights.items()}
    loaded = comfy.sd.VAE(
        sd=weights, config={"params": {"ddconfig": shape, "embed_dim": vae["latent_channels"]}}, dtype=torch.float32
    )
    check_keys("vae", weights, loaded.first_stage_model)
    loaded.latent_channels = vae["latent_channels"]
    loaded.downscale_ratio = loaded.upscale_ratio = 2 ** (len(widths) - 1)
    return loaded


def assigned(load, patcher: ModelPatcher) -> dict:
    """Weights of a model whose memory is dynamic are taken over, not copied."""
    dynamic = getattr(patcher, "is_dynamic", None)
    return {} if dynamic is None else known(load, assign=dynamic())


def check_keys(part: str, weights: dict[str, Tensor], module: torch.nn.Module, but: tuple[str, ...] = ()) -> None:
    """Raise InputError unless the weights are those of a module, except ``but`` some that it may do without.

    They are read into it: with dynamic memory ComfyUI makes a layer's weights only then, and says only then what lacks.
    """
    own = module.state_dict()
    wrong = {key for key, weight in weights.items() if key in own and own[key].shape != weight.shape}
    if not wrong:
        missing, unexpected = module.load_state_dict(weights, strict=False)
        wrong = {*missing, *unexpected} - set(but)
    if wrong:
        raise InputError(
            f"The weights of the {part} are not those of its config ({len(wrong)} keys differ, such as {min(wrong)}): "
            "get the pipeline's folder again."
        )
