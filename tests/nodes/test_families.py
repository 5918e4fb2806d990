"""Which base model a conditioning, its latents and its model belong to: the table against ComfyUI's own classes."""

from __future__ import annotations

import re

import comfy.sample
import comfy.supported_models
import pytest
import torch

from tests.nodes.conditionings import conditioning
from tests.nodes.flow_prompts import HERE, flow_prompts
from tests.nodes.graphs import call
from tests.nodes.tiny_pack.flow import tiny_flow
from tests.nodes.tiny_pack.models import tiny_hunyuan_dit, tiny_sdxl
from tests.nodes.tiny_pack.text import tiny_hunyuan_clip, tiny_sdxl_clip

FAMILY = {"schnell": "flux"}  # of what has another name in FLOW
FILM = (1, 16, 1, 12, 16)  # shapes of noise
IMAGE = (1, 16, 12, 16)
SMALL = (1, 4, 12, 16)
OTHERS = {  # what looks like one of ours in part: width, pooled, extra keys, shape, image_model
    "Chroma": (4096, None, {}, IMAGE, "chroma"),
    "Wan 2.1": (4096, None, {}, FILM, "wan2.1"),
    "HunyuanVideo": (4096, 768, {}, FILM, "hunyuan_video"),
    "HiDream": (4096, 2048, {"conditioning_llama3": torch.zeros(1)}, IMAGE, "hidream"),
    "Lumina 2": (2304, None, {}, IMAGE, "lumina2"),
    "NewBie": (2560, 1024, {}, IMAGE, "lumina2"),
    "Mage-Flow": (2560, None, {}, (1, 128, 6, 8), "mage_flow"),
    "Cosmos": (1024, None, {}, FILM, "cosmos"),
    "LongCat": (3584, None, {}, IMAGE, "flux"),
    "HunyuanImage 2.1": (3584, None, {}, (1, 64, 6, 8), "hunyuan_video"),
    "AuraFlow": (2048, None, {}, SMALL, None),
    "FLUX.2 klein": (7680, None, {}, (1, 128, 6, 8), "flux2"),
}


@pytest.fixture(scope="module")
def families(pack):
    return pack.nodes.families


def entry_of(cond: list) -> dict:
    return {**cond[0][1], "cross_attn": cond[0][0]}


def looks_like(width, pooled, keys) -> dict:
    pooled = None if pooled is None else torch.zeros(1, pooled)
    return {"cross_attn": torch.zeros(1, 7, width), "pooled_output": pooled, **keys}


@pytest.mark.parametrize("name", HERE)
def test_a_flow_family_is_known_by_its_prompt_alone_and_with_its_model(families, name):
    family = FAMILY.get(name, name)
    entry, model = entry_of(flow_prompts(name)[0]), tiny_flow(name)
    shape = comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, 4, 12, 16)).shape
    assert families.family_of(entry, families.Base()) == family
    assert families.family_of(entry, families.Base(shape)) == family
    assert families.family_of(entry, families.base_of(model, shape)) == family


@pytest.mark.parametrize(
    ("family", "model", "cond"),
    [
        ("sdxl", tiny_sdxl, lambda: call("CLIPTextEncode", clip=tiny_sdxl_clip(), text="fox")[0]),
        ("hunyuan-dit", tiny_hunyuan_dit, lambda: call("CLIPTextEncode", clip=tiny_hunyuan_clip(), text="fox")[0]),
        ("sd1", None, lambda: conditioning("sd1")),
        ("sd2", None, lambda: conditioning("sd2")),
    ],
)
def test_the_families_of_before(families, family, model, cond):
    entry = entry_of(cond())
    assert families.family_of(entry, families.Base()) == families.family_of(entry, families.Base(SMALL)) == family
    if model:
        assert families.family_of(entry, families.base_of(model(), SMALL)) == family


def test_anima_is_not_sd2(families):
    """Both are 1,024 wide."""
    prompt = looks_like(1024, None, {"t5xxl_ids": torch.zeros(9)})
    assert families.family_of(prompt, families.Base()) == "anima"
    assert families.family_of(looks_like(1024, 1024, {}), families.Base()) == "sd2"


def test_qwen_image_2_1(families):
    """As ComfyUI 0.38 has it, which was read and not run."""
    prompt = looks_like(4096, None, {})
    assert families.family_of(prompt, families.Base((1, 64, 6, 8), "qwen_image21")) == "qwen-image-2.1"


@pytest.mark.parametrize("other", OTHERS)
def test_what_looks_alike_is_not_taken_for_one_of_ours(families, other):
    *prompt, shape, image_model = OTHERS[other]
    assert families.family_of(looks_like(*prompt), families.Base(shape, image_model)) is None


@pytest.mark.parametrize("name", [name for name in HERE if name != "schnell"])
def test_the_table_says_what_comfyui_says(families, name):
    family, model = families.FAMILIES[name], tiny_flow(name)
    latent_format = model.get_model_object("latent_format")
    assert family.channels == latent_format.latent_channels
    assert family.frames == (latent_format.latent_dimensions == 3)
    assert model.model.model_config.unet_config.get("image_model") in family.image_models


def test_image_models_are_names_of_comfyuis(families):
    known = {getattr(cls, "unet_config", {}).get("image_model") for cls in comfy.supported_models.models}
    newer = {"qwen_image21"} | ({"krea2", "anima"} - known)  # than this ComfyUI
    assert {name for family in families.FAMILIES.values() for name in family.image_models} <= known | newer


@pytest.mark.parametrize("name", HERE)
def test_a_net_of_another_family_is_refused_and_both_are_named(pack, families, name):
    config, conds = pack.npnet_core.config, pack.nodes.conditioning
    positive, model, family = flow_prompts(name)[0], tiny_flow(name), FAMILY.get(name, name)
    shape = FILM if families.FAMILIES[family].frames else IMAGE
    start = conds.start_at(model, torch.ones(1), shape)
    own = config.UNetConfig(family=family, channels=16, prompt_dim=families.FAMILIES[family].width)
    embeds, _ = conds.prompt_of(positive, own, start)
    assert torch.equal(embeds, positive[0][0])
    other = next(each for each in ("z-image", "flux") if each != family)
    net = config.UNetConfig(family=other, channels=16, prompt_dim=families.FAMILIES[other].width)
    came, expected = (re.escape(families.FAMILIES[named].title) for named in (family, other))
    with pytest.raises(ValueError, match=rf"The conditioning is {came} \(\d+ wide\), .* was trained for {expected} \("):
        conds.prompt_of(positive, net, start)


def test_a_prompt_that_fits_with_a_model_that_does_not(pack, families):
    """FLUX.1's text encoders before a Chroma model, and Chroma's own, which another model's prompts look like."""
    conds = pack.nodes.conditioning
    chroma = families.Base(IMAGE, "chroma")
    start = conds.Start(chroma, 1.0, lambda percent: 1.0 - percent)
    net = pack.npnet_core.config.UNetConfig(family="flux", channels=16, prompt_dim=4096)
    own = [[torch.zeros(1, 7, 4096), {"pooled_output": None}]]  # as Qwen-Image 2.1's looks
    for prompt in (conditioning("flux"), own):
        with pytest.raises(
            ValueError, match=r"^The model is chroma, this NPNet was trained for FLUX\.1: use a FLUX\.1 "
        ):
            conds.prompt_of(prompt, net, start)
