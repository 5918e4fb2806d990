"""Nodes and trainer agree on flow models: the same text, weights and seed give the same prompt, pair and golden noise.

The trainer's side is diffusers' and transformers' classes; ComfyUI's own conversion brings weights over. The
vocabularies are the real ones, folded where they are large. Widths are small: the table of families is told them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import comfy.model_detection
import comfy.sd
import comfy.sd1_clip
import comfy.text_encoders
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from npnet_core.golden import golden_noise
from npnet_core.prompt_form import canonical
from tests import tiny_pipelines
from tests.nodes.graphs import call
from tests.nodes.npnets import SHAPES, save_tiny_npnet
from tests.nodes.tiny_pack.flow import FLOW, QWEN, T5, VOCABULARY, folded, tiny_flow, tiny_flow_clip
from trainer import bases
from trainer.collecting.redenoising import Redenoising

ENCODERS = Path(comfy.text_encoders.__path__[0])
CLIP_WORDS = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")
PROMPTS = {"short": "A red fox in the snow; Ölgemälde, 2 boats", "long": "a very long tale of the sea, " * 30}
# T5's part is filled up no more; beyond 77 of CLIP's tokens ComfyUI's part of these grows and the trainer's is cut
LONG = {"sd3": "a vaporwave cyborg samurai, anime manga " * 8}
SEED, SIZE = 7, (96, 80)  # pixels
CLIP = {"num_attention_heads": 2, "num_hidden_layers": 3}


@dataclass(frozen=True)
class Both:
    """One model on both sides; its prompts' and pooled widths; the guidances that suit it."""

    base: bases.Base
    model: ModelPatcher
    clip: comfy.sd.CLIP
    width: int
    pooled: int | None
    guidance: dict[str, float]


def fold(text: nn.Module) -> nn.Module:
    """A text model of transformers with VOCABULARY rows, for tokens of any."""
    for module in text.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == VOCABULARY:
            module.register_forward_pre_hook(folded)
    return text


def clip_text(cls, width: int, pad: str, **config) -> tuple[nn.Module, CLIPTokenizer]:
    tokenizer = CLIPTokenizer.from_pretrained(CLIP_WORDS, pad_token=pad, model_max_length=77)
    shape = {"num_hidden_layers": CLIP["num_hidden_layers"], "projection_dim": width, **config}
    return tiny_pipelines.clip_text_model(cls, tokenizer, width, **shape), tokenizer


def t5_text(width: int) -> tuple[nn.Module, T5TokenizerFast]:
    small = {"d_model": width, "feed_forward_proj": "gated-gelu", **T5}
    return fold(T5EncoderModel(T5Config(**small))), T5TokenizerFast.from_pretrained(
        ENCODERS / "t5_tokenizer", model_max_length=512
    )


def z_image(folder: Path) -> Both:
    from diffusers import ZImageTransformer2DModel

    tokenizer = Qwen2Tokenizer.from_pretrained(ENCODERS / "qwen25_tokenizer", chat_template=tiny_pipelines.CHAT)
    small = {"hidden_size": 32, "num_hidden_layers": 3, "head_dim": 128, "rope_theta": 1e6, **QWEN}
    # ComfyUI takes it for granted that the network is wider than what tells it the time
    shape = {"dim": 1056, "n_heads": 33, "n_kv_heads": 33, "cap_feat_dim": 32, "n_layers": 1, "n_refiner_layers": 1}
    network = ZImageTransformer2DModel(axes_dims=[8, 12, 12], axes_lens=[1536, 64, 64], **shape)
    parts = {"text_encoder": fold(Qwen3Model(Qwen3Config(**small))), "tokenizer": tokenizer}
    base = with_parts(tiny_pipelines.tiny_z_image(folder), transformer=network, **parts)
    clip = tiny_flow_clip("z-image", qwen3_4b={"hidden_size": 32})
    load(clip.cond_stage_model.qwen3_4b.transformer.model, base.pipe.text_encoder)
    return Both(base, converted("z-image", network, **shape), clip, 32, None, {"cfg": 4.0, "inversion_cfg": 1.5})


def flux(folder: Path) -> Both:
    from diffusers import FluxTransformer2DModel

    text, tokenizer = clip_text(CLIPTextModel, 24, "<|endoftext|>")
    text_2, tokenizer_2 = t5_text(40)
    small = {"attention_head_dim": 16, "num_attention_heads": 2, "num_layers": 1, "num_single_layers": 1}
    told = {"joint_attention_dim": 40, "pooled_projection_dim": 24, "guidance_embeds": True}
    network = FluxTransformer2DModel(in_channels=64, axes_dims_rope=(4, 6, 6), **small, **told)
    parts = {"text_encoder": text, "tokenizer": tokenizer, "text_encoder_2": text_2, "tokenizer_2": tokenizer_2}
    base = with_parts(tiny_pipelines.tiny_flux(folder), transformer=network, **parts)
    clip = tiny_flow_clip("flux", clip_l={**CLIP, "hidden_size": 24, "intermediate_size": 48}, t5xxl={"d_model": 40})
    load(clip.cond_stage_model.clip_l.transformer, text, "text_model.")
    load(clip.cond_stage_model.t5xxl.transformer, text_2)
    shape = {"hidden_size": 32, "axes_dim": [4, 6, 6], "vec_in_dim": 24, "context_in_dim": 40, "mlp_ratio": 4.0}
    return Both(base, converted("flux", network, **shape), clip, 40, 24, {"cfg": 4.5, "inversion_cfg": 1.0})


def sd3(folder: Path) -> Both:
    """Its T5 is of real width, which ComfyUI takes for granted."""
    from diffusers import SD3Transformer2DModel

    text, tokenizer = clip_text(CLIPTextModelWithProjection, 24, "<|endoftext|>")
    text_2, tokenizer_2 = clip_text(CLIPTextModelWithProjection, 40, "!", hidden_act="gelu")
    nn.init.eye_(text.text_projection.weight)  # as in the published CLIP-L, of which ComfyUI leaves it out
    text_3, tokenizer_3 = t5_text(4096)
    # as many blocks as heads of 64, which ComfyUI's conversion takes for granted
    small = {"attention_head_dim": 64, "num_attention_heads": 2, "caption_projection_dim": 128, "num_layers": 2}
    told = {"joint_attention_dim": 4096, "pooled_projection_dim": 64, "qk_norm": "rms_norm"}
    network = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, out_channels=16, pos_embed_max_size=24, **small, **told
    )
    parts = {"text_encoder": text, "text_encoder_2": text_2, "text_encoder_3": text_3}
    parts |= {"tokenizer": tokenizer, "tokenizer_2": tokenizer_2, "tokenizer_3": tokenizer_3}
    base = with_parts(tiny_pipelines.tiny_sd3(folder), transformer=network, **parts)
    shapes = {
        part: {**CLIP, "hidden_size": w, "intermediate_size": 2 * w} for part, w in (("clip_l", 24), ("clip_g", 40))
    }
    clip = tiny_flow_clip("sd3", **shapes)
    for part, module in {"clip_l": text, "clip_g": text_2}.items():
        load(getattr(clip.cond_stage_model, part).transformer, module, "text_model.")
    load(clip.cond_stage_model.t5xxl.transformer, text_3)
    layer = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}
    shape = {"depth": 2, "adm_in_channels": 64, "num_patches": 576, "pos_embed_max_size": 24}
    model = converted("sd3", network, **shape, context_embedder_config=layer)
    return Both(base, model, clip, 4096, 64, {"cfg": 4.0, "inversion_cfg": 1.5})


def with_parts(folder: Path, transformer: nn.Module, **parts) -> bases.Base:
    """The trainer's model of a folder with parts of other sizes, random and deaf to nothing."""
    base = bases.load_base(folder)
    base.pipe.register_modules(transformer=tiny_pipelines.lively(transformer), **parts)
    for part in (transformer, *parts.values()):
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return base


def load(theirs: nn.Module, ours: nn.Module, prefix: str = "") -> None:
    """Weights of transformers' text models → ComfyUI's, whose names are the same but for a prefix."""
    state = {name: value.clone() for name, value in ours.state_dict().items()}
    known = theirs.state_dict().keys()
    state = {name if name in known else prefix + name: value for name, value in state.items()}
    missing, _ = theirs.load_state_dict(state, strict=False)
    assert not [name for name in missing if "text_projection" not in name]


def converted(name: str, network: nn.Module, **shape) -> ModelPatcher:
    """ComfyUI's model with the weights of diffusers' transformer."""
    model = tiny_flow(name, **shape)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    state = comfy.model_detection.convert_diffusers_mmdit(weights, "")
    missing, unexpected = model.model.diffusion_model.load_state_dict(state, strict=False)
    assert not unexpected
    assert not missing
    return model


KINDS: dict[str, Callable[[Path], Both]] = {"z-image": z_image, "flux": flux, "sd3": sd3}


@pytest.fixture(scope="module", params=[name for name in KINDS if FLOW[name].here])
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def both(family, packs, tmp_path_factory) -> Both:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KINDS[family](tmp_path_factory.mktemp(family))


@pytest.fixture(autouse=True)
def told(family, both, pack, monkeypatch) -> None:
    """The table of families knows the widths of the tiny models."""
    known = pack.nodes.families.FAMILIES
    small = dataclasses.replace(known[family], width=both.width, pooled=(both.pooled,))
    monkeypatch.setitem(known, family, small)
    monkeypatch.setitem(SHAPES, family, (both.width, 16))


def close(ours, theirs) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=PROMPTS)
def conditioned(request, both, family) -> tuple[bases.Prompts, list, list]:
    """A prompt as the trainer encodes it, and as positive and negative conditioning."""
    prompt = LONG.get(family, PROMPTS["long"]) if request.param == "long" else PROMPTS[request.param]
    positive, negative = (call("CLIPTextEncode", clip=both.clip, text=text)[0] for text in (prompt, ""))
    return bases.encode(both.base, [prompt]), positive, negative


def test_prompts_in_canonical_form(both, family, conditioned):
    prompts, positive, _ = conditioned
    mask = positive[0][1].get("attention_mask")
    ours, ours_mask = canonical(family, prompts.prompt_embeds, prompts.prompt_mask)
    theirs, theirs_mask = canonical(family, positive[0][0], None if mask is None else mask.bool())
    if theirs_mask is not None:
        theirs = theirs[:, theirs_mask[0]]
    close(ours[:, ours_mask[0]], theirs)
    if both.pooled:
        close(prompts.cond["pooled"], positive[0][1]["pooled_output"])


@pytest.mark.parametrize("way", [{"depth": 1}, {"depth": 2, "inversion": "fixed-point"}], ids=["exact", "deep"])
def test_pairs(both, conditioned, way):
    prompts, positive, negative = conditioned
    schedule, noise = bases.Schedule("euler", 8), bases.initial_noise(both.base, [SEED], *SIZE)
    levels = bases.levels(both.base, schedule, tuple(noise.shape[1:]))
    target = Redenoising(**both.guidance, **way).redenoised(both.base, prompts, noise, schedule).target
    (source,) = call("RandomNoise", noise_seed=SEED)
    sigmas = torch.tensor([level.sigma for level in levels] + [0.0])
    pair = call(
        "NPNetRedenoisePair", model=both.model, positive=positive, negative=negative, noise=source, sigmas=sigmas,
        latent_image={"samples": torch.zeros_like(noise)}, rounds=1, **both.guidance, **{"inversion": "exact"} | way,
    )[2]  # fmt: skip
    assert torch.equal(pair.source, noise)
    assert torch.linalg.vector_norm(target - noise) > 1e-3 * torch.linalg.vector_norm(noise)
    close(pair.target, target)


def test_golden_noise(both, family, pack, comfy_base, conditioned):
    prompts, positive, _ = conditioned
    (npnet,) = call("NPNetLoad", npnet_name=save_tiny_npnet(pack, comfy_base, family, arch="unet"))
    (source,) = call("RandomNoise", noise_seed=SEED)
    golden = call("NPNetNoise", npnet=npnet, noise=source, conditioning=positive, strength=1.0, long_prompt="truncate")
    noise = bases.initial_noise(both.base, [SEED], *SIZE)
    ours = golden_noise(npnet.patcher.model, noise, prompts.prompt_embeds, prompts.prompt_mask)
    assert not torch.allclose(ours, noise)
    close(golden[0].generate_noise({"samples": torch.zeros_like(noise)}), ours)
