"""The trainer's base models against ComfyUI: one checkpoint, as ComfyUI saves it, read by both sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import comfy.model_base
import comfy.sample
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.text_encoders.bert
import pytest
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.sd2_clip import SD2Tokenizer
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from npnet_core.redenoising import Level
from tests import tiny_pipelines
from tests.nodes.interfaces import state_dict_for_saving
from tests.nodes.tiny_pack.models import SDXL_UNET, seed_parameters
from trainer.bases import Base, decode, denoiser, encode, initial_noise, load_base

L, G = 32, 48  # widths of SDXL's text encoders; SD's is as wide as the first
PROMPT = "an oil painting of two boats at sunset, highly detailed"
PAD_ZERO = {"start": 49406, "end": 49407, "pad": 0}
PLAIN_UNET = {key: value for key, value in SDXL_UNET.items() if key not in ("num_classes", "adm_in_channels")}


def text_encoder(width: int, activation: str, **options) -> SDClipModel:
    config = {
        "vocab_size": 49408,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "hidden_act": activation,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    }
    return SDClipModel(textmodel_json_config=config, **options)


class SDXLText(SDXLClipModel):
    """ComfyUI's text models, three layers deep and narrow."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        penultimate = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False}
        self.clip_l = text_encoder(L, "quick_gelu", **penultimate)
        self.clip_g = text_encoder(G, "gelu", special_tokens=PAD_ZERO, **penultimate)
        self.dtypes = {torch.float32}


class SD1Text(SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        self.clip_name, self.clip = "l", "clip_l"
        self.clip_l = text_encoder(L, "quick_gelu")
        self.dtypes = {torch.float32}


class SD2Text(SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        self.clip_name, self.clip = "h", "clip_h"
        self.clip_h = text_encoder(L, "gelu", special_tokens=PAD_ZERO, layer="hidden", layer_idx=-2)
        self.dtypes = {torch.float32}


@dataclass(frozen=True)
class Both:
    """ComfyUI's parts, and what load_base made of the checkpoint they were saved to."""

    model: comfy.model_base.BaseModel
    clip: comfy.sd.CLIP
    vae: AutoencoderKL
    base: Base


def comfyui_parts(kind):
    known, version = comfy.supported_models, comfy.model_base
    if kind == "sdxl":
        config = known.SDXL(SDXL_UNET | {"context_dim": L + G, "adm_in_channels": G + 6 * 256})
        model, text = version.SDXL, ClipTarget(SDXLTokenizer, SDXLText)
    elif kind == "sd1":
        config = known.SD15(PLAIN_UNET | {"context_dim": L, "use_linear_in_transformer": False})
        model, text = version.BaseModel, ClipTarget(SD1Tokenizer, SD1Text)
    else:
        config = known.SD20(PLAIN_UNET | {"context_dim": L})
        model, text = version.BaseModel, ClipTarget(SD2Tokenizer, SD2Text)
    config.unet_config |= {"num_heads": 8, "num_head_channels": -1}
    config.set_inference_dtype(torch.float32, None)
    model_type = version.ModelType.V_PREDICTION if kind == "sd2" else version.ModelType.EPS
    model = model(config, model_type=model_type, device="cpu").eval()
    clip = comfy.sd.CLIP(text, model_options={"dtype": torch.float32})
    structure = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "z_channels": 4, "resolution": 64}
    structure |= {"double_z": True, "in_channels": 3, "out_ch": 3, "attn_resolutions": [], "dropout": 0}
    vae = AutoencoderKL(embed_dim=4, ddconfig=structure).eval()
    seed_parameters(model.diffusion_model, 0, gain=1.0)
    seed_parameters(clip.cond_stage_model, 1, gain=2.0)
    seed_parameters(vae, 2, gain=1.0)
    return model, clip, vae


def config_folder(kind, folder):
    """The same shapes as a diffusers folder, with CLIP's real vocabulary; its weights are others."""
    words = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")
    pads = {"sdxl": ("<|endoftext|>", "!"), "sd1": ("<|endoftext|>",), "sd2": ("!",)}[kind]
    tokenizers = [CLIPTokenizer.from_pretrained(words, pad_token=pad, model_max_length=77) for pad in pads]
    unet = {"block_out_channels": (32, 64), "norm_num_groups": 32, "attention_head_dim": 8}
    scale = {"scaling_factor": 0.13025 if kind == "sdxl" else 0.18215}
    vae = tiny_pipelines.vae(block_out_channels=(32, 32, 32, 32), norm_num_groups=32, **scale)
    if kind == "sdxl":
        unet |= {"transformer_layers_per_block": 1, "addition_time_embed_dim": 256}
        unet |= {"projection_class_embeddings_input_dim": 6 * 256 + G}
        return tiny_pipelines.tiny_sdxl(folder, (L, G), tokenizers=tokenizers, layers=3, autoencoder=vae, **unet)
    # diffusers leaves out the layer behind the penultimate one, which SD 2 does not use
    options = {"layers": 3} if kind == "sd1" else {"layers": 2, "prediction": "v_prediction", "hidden_act": "gelu"}
    unet |= {"use_linear_projection": kind == "sd2"}
    return tiny_pipelines.tiny_sd(folder, L, tokenizer=tokenizers[0], autoencoder=vae, **options, **unet)


def checkpoint(model, clip, vae) -> dict[str, torch.Tensor]:
    saved = state_dict_for_saving(model, clip, vae)
    return {key: value.contiguous().clone() for key, value in saved.items()}


@pytest.fixture(scope="module", params=["sdxl", "sd1", "sd2"])
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model, clip, vae = comfyui_parts(request.param)
    save_file(checkpoint(model, clip, vae), folder / "model.safetensors")
    base = load_base(folder / "model.safetensors", config=config_folder(request.param, folder / "config"))
    return Both(model, clip, vae, base)


def test_encodes_like_comfyui(both):
    embeds, pooled = both.clip.encode_from_tokens(both.clip.tokenize(PROMPT), return_pooled=True)
    ours = encode(both.base, [PROMPT])
    assert ours.prompt_embeds.shape == (1, 77, both.base.prompt_dim) == embeds.shape
    torch.testing.assert_close(ours.prompt_embeds, embeds, rtol=1e-5, atol=1e-5)
    if "pooled" in ours.cond:
        torch.testing.assert_close(ours.cond["pooled"], pooled, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("t", [1, 500, 901])
def test_denoises_like_comfyui(both, t):
    base, model = both.base, both.model
    prompts, x = encode(base, [PROMPT]), initial_noise(base, [5], 128, 96)
    level = Level.diffusion(base.pipe.scheduler.alphas_cumprod[t].item(), t)
    told = {"c_crossattn": prompts.prompt_embeds}
    if base.family == "sdxl":
        told["y"] = model.encode_adm(pooled_output=prompts.cond["pooled"], width=96, height=128, device="cpu")
    sigma = model.model_sampling.sigmas[t].reshape(1)
    expected = model.apply_model(x / level.alpha, sigma, **told)  # ComfyUI holds latents at alpha = 1
    ours = denoiser(base, prompts)(x, level, cfg=1.0)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@torch.no_grad()
def test_decodes_like_comfyui(both):
    latents = initial_noise(both.base, [5], 128, 96)
    expected = both.vae.decode(both.model.latent_format.process_out(latents)) / 2 + 0.5
    images = decode(both.base, latents)
    assert images.std() > 0.05
    torch.testing.assert_close(images, expected.clamp(0, 1).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 2**63 + 5])
def test_noise_is_comfyuis(both, seed):
    noise = initial_noise(both.base, [1, seed], 128, 96)
    torch.testing.assert_close(noise[1:], comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 12), seed), rtol=0, atol=0)


def test_hunyuan_dits_bert_is_comfyuis(tmp_path):
    """With its attention mask; padded places included, since an NPNet sees them too."""
    base = load_base(tiny_pipelines.tiny_hunyuan_dit(tmp_path))
    bert, tokenizer = base.pipe.text_encoder, base.pipe.tokenizer
    special = {"start": tokenizer.cls_token_id, "end": tokenizer.sep_token_id, "pad": tokenizer.pad_token_id}
    theirs = SDClipModel(
        textmodel_json_config=bert.config.to_dict(),
        model_class=comfy.text_encoders.bert.BertModel,
        special_tokens=special,
        enable_attention_masks=True,
    )
    missing, _ = theirs.load_sd({f"bert.{name}": value for name, value in bert.state_dict().items()})
    assert not missing
    prompt = "a red circle left of a blue square"
    tokens = tokenizer(prompt, padding="max_length", max_length=77).input_ids
    expected, _ = theirs.encode([tokens])
    torch.testing.assert_close(encode(base, [prompt]).prompt_embeds, expected, rtol=1e-5, atol=1e-5)
