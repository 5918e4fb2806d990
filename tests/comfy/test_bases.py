"""The trainer's base models against ComfyUI: one checkpoint, as ComfyUI saves it, read by both sides."""

from __future__ import annotations

import comfy.model_base
import comfy.sd
import comfy.supported_models
import pytest
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.sd1_clip import SDClipModel
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from safetensors.torch import save_file

from npnet_core.redenoise import Level
from tests import tiny_pipelines
from tests.comfy.tiny_pack.models import SDXL_UNET, seed_parameters
from trainer.bases import decode, denoiser, encode, initial_noise, load_base

L, G = 32, 48  # widths of the text encoders
VAE = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "z_channels": 4, "resolution": 64}
PROMPT = "an oil painting of two boats at sunset, highly detailed"


class TinySDXLText(SDXLClipModel):
    """ComfyUI's CLIP, three layers deep and narrow."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        penultimate = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False}
        self.clip_l = SDClipModel(textmodel_json_config=clip_config(L, "quick_gelu"), **penultimate)
        pad = {"start": 49406, "end": 49407, "pad": 0}
        self.clip_g = SDClipModel(textmodel_json_config=clip_config(G, "gelu"), special_tokens=pad, **penultimate)
        self.dtypes = {torch.float32}


def clip_config(width, activation):
    return {
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


@pytest.fixture(scope="module")
def comfy_sdxl():
    """ComfyUI's SDXL: (BaseModel, CLIP, autoencoder), and the state dict that CheckpointSave would write."""
    config = comfy.supported_models.SDXL(SDXL_UNET | {"context_dim": L + G, "adm_in_channels": G + 6 * 256})
    config.unet_config["num_head_channels"] = 32
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.SDXL(config, device="cpu").eval()
    clip = comfy.sd.CLIP(ClipTarget(SDXLTokenizer, TinySDXLText), model_options={"dtype": torch.float32})
    vae = AutoencoderKL(
        embed_dim=4,
        ddconfig={"double_z": True, "in_channels": 3, "out_ch": 3, "attn_resolutions": [], "dropout": 0} | VAE,
    ).eval()
    seed_parameters(model.diffusion_model, 0, gain=1.0)
    seed_parameters(clip.cond_stage_model, 1, gain=2.0)
    seed_parameters(vae, 2, gain=1.0)
    saved = model.state_dict_for_saving(clip.get_sd(), vae.state_dict())
    return model, clip, vae, {key: value.contiguous().clone() for key, value in saved.items()}


@pytest.fixture(scope="module")
def base(comfy_sdxl, tmp_path_factory):
    import os

    from comfy import sd1_clip
    from transformers import CLIPTokenizer

    root = tmp_path_factory.mktemp("sdxl")
    save_file(comfy_sdxl[-1], root / "model.safetensors")
    words = os.path.join(os.path.dirname(sd1_clip.__file__), "sd1_tokenizer")
    folder = tiny_pipelines.tiny_sdxl(
        root / "config",
        tokenizers=[
            CLIPTokenizer.from_pretrained(words, pad_token=pad, model_max_length=77) for pad in ("<|endoftext|>", "!")
        ],
        widths=(L, G),
        layers=3,
        vae_config={"block_out_channels": (32, 32, 32, 32), "norm_num_groups": 32},
        block_out_channels=(32, 64),
        norm_num_groups=32,
        attention_head_dim=(1, 2),
        transformer_layers_per_block=1,
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + G,
    )
    return load_base(root / "model.safetensors", config=folder)


def test_encodes_like_comfyui(comfy_sdxl, base):
    _, clip, _, _ = comfy_sdxl
    embeds, pooled = clip.encode_from_tokens(clip.tokenize(PROMPT), return_pooled=True)
    ours = encode(base, [PROMPT])
    assert ours.prompt_embeds.shape == (1, 77, base.prompt_dim) == embeds.shape
    torch.testing.assert_close(ours.prompt_embeds, embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.cond["pooled"], pooled, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("t", [1, 500, 901])
def test_denoises_like_comfyui(comfy_sdxl, base, t):
    model, _, _, _ = comfy_sdxl
    prompts = encode(base, [PROMPT])
    x = initial_noise(base, [5], 128, 96)
    level = Level.diffusion(base.pipe.scheduler.alphas_cumprod[t].item(), t)
    y = model.encode_adm(pooled_output=prompts.cond["pooled"], width=96, height=128, device="cpu")
    sigma = model.model_sampling.sigmas[t].reshape(1)  # ComfyUI's latents are x / alpha
    expected = model.apply_model(x / level.alpha, sigma, c_crossattn=prompts.prompt_embeds, y=y)
    ours = denoiser(base, prompts)(x, level, cfg=1.0)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@torch.no_grad()
def test_decodes_like_comfyui(comfy_sdxl, base):
    model, _, vae, _ = comfy_sdxl
    latents = initial_noise(base, [5], 128, 96)
    expected = vae.decode(model.latent_format.process_out(latents)) / 2 + 0.5
    images = decode(base, latents)
    assert images.std() > 0.05
    torch.testing.assert_close(images, expected.clamp(0, 1).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 2**63 + 5])
def test_noise_is_comfyuis(base, seed):
    import comfy.sample

    noise = initial_noise(base, [1, seed], 128, 96)
    torch.testing.assert_close(noise[1:], comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 12), seed), rtol=0, atol=0)
