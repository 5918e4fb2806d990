"""Which base model a CONDITIONING is of, and which part of it golden noise is made for."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.samplers
import pytest
import torch
from comfy.model_base import ModelType
from comfy.sampler_helpers import convert_cond
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.nodes.conditionings import conditioning
from tests.nodes.graphs import call
from tests.nodes.tiny_pack.models import tiny_sdxl
from tests.nodes.tiny_pack.text import tiny_hunyuan_clip, tiny_sdxl_clip

SDXL = conditioning("sdxl", 1)
OTHER = conditioning("sdxl", 2)
REFINER = [[torch.randn(1, 77, 1280), {"pooled_output": torch.randn(1, 1280)}]]
MODELS = {name: tiny_sdxl(model_type=ModelType[name]) for name in ("EPS", "FLOW", "EDM")}
AURA_FLOW = [[torch.randn(1, 256, 2048), {"pooled_output": None}]]  # T5, as wide as SDXL's two CLIPs together


@pytest.fixture(scope="module")
def prompt_embeds(pack):
    """The embedding that prompt_of gives for the published net of a family, or for one of our own."""
    config = pack.npnet_core.config
    own = {
        "sd1": config.NPNetConfig(family="sd1", prompt_dim=768),
        "sd2": config.NPNetConfig(family="sd2", prompt_dim=1024),
        "shapes": config.NPNetConfig(family="shapes", prompt_dim=768),
    }

    def prompt_embeds(cond, family="sdxl", start=None):
        start = start or pack.nodes.conditioning.at_full_noise((1, 4, 12, 10))
        return pack.nodes.conditioning.prompt_of(cond, (config.PUBLISHED | own)[family], start)[0]

    return prompt_embeds


@pytest.mark.parametrize(
    ("came", "family"), [("sdxl", "sdxl"), ("hunyuan_dit", "hunyuan-dit"), ("sd1", "sd1"), ("sd2", "sd2")]
)
def test_a_family_takes_its_own(prompt_embeds, came, family):
    cond = conditioning(came)
    assert torch.equal(prompt_embeds(cond, family), cond[0][0])


def test_what_the_real_text_encoders_give_is_taken(prompt_embeds):
    (cond,) = call("CLIPTextEncode", clip=tiny_sdxl_clip(), text="fox " * 100)
    assert prompt_embeds(cond).shape == (1, 154, 2048)
    (zeroed,) = call("ConditioningZeroOut", conditioning=cond)
    assert torch.equal(prompt_embeds(zeroed), torch.zeros(1, 154, 2048))
    (cond,) = call("CLIPTextEncodeHunyuanDiT", clip=tiny_hunyuan_clip(), bert="fox", mt5xl="fox " * 400)
    assert prompt_embeds(cond, "hunyuan-dit").shape == (1, 77, 1024)


@pytest.mark.parametrize("tokens", [77, 100, 256])
def test_hunyuan_dit_is_cut(prompt_embeds, tokens):
    cond = conditioning("hunyuan_dit", tokens=tokens)
    assert torch.equal(prompt_embeds(cond, "hunyuan-dit"), cond[0][0][:, :77])


@pytest.mark.parametrize(
    ("cond", "family", "came", "expected"),
    [
        (conditioning("sd1"), "sdxl", "Stable Diffusion 1.x (768 wide)", "SDXL (2048 wide)"),
        (conditioning("sd2"), "sdxl", "Stable Diffusion 2.x (1024 wide)", "SDXL (2048 wide)"),
        (conditioning("sd3"), "sdxl", "Stable Diffusion 3.x (4096 wide)", "SDXL (2048 wide)"),
        (conditioning("flux"), "sdxl", "FLUX.1 (4096 wide)", "SDXL (2048 wide)"),
        (REFINER, "sdxl", "another base model's (1280 wide)", "SDXL (2048 wide)"),
        (AURA_FLOW, "sdxl", "another base model's (2048 wide)", "SDXL (2048 wide)"),
        (conditioning("hunyuan_dit"), "sdxl", "HunyuanDiT (1024 wide)", "SDXL (2048 wide)"),
        (conditioning("sdxl"), "hunyuan-dit", "SDXL (2048 wide)", "HunyuanDiT (1024 wide)"),
        (conditioning("sd2"), "hunyuan-dit", "Stable Diffusion 2.x (1024 wide)", "HunyuanDiT (1024 wide)"),
        (conditioning("hunyuan_dit"), "sd2", "HunyuanDiT (1024 wide)", "Stable Diffusion 2.x (1024 wide)"),
        (conditioning("sdxl"), "shapes", "2048 wide", "shapes (768 wide)"),
    ],
)
def test_other_families_are_refused(prompt_embeds, pack, cond, family, came, expected):
    with pytest.raises(pack.npnet_core.errors.InputError) as refused:
        prompt_embeds(cond, family)
    message = str(refused.value)
    assert message.startswith(
        f"The conditioning is {came}, this NPNet was trained for {expected}: use the text encoder"
    )


def test_a_net_of_our_own_family_takes_whatever_is_as_wide(prompt_embeds):
    cond = conditioning("sd1")
    assert torch.equal(prompt_embeds(cond, "shapes"), cond[0][0])


def entry(cond: list, **options) -> list:
    return [cond[0][0], {**cond[0][1], **options}]


HALF = torch.cat([torch.ones(1, 4, 8), torch.zeros(1, 4, 8)], 1)


# a conditioning of SDXL and OTHER, of which SDXL counts
@pytest.mark.parametrize(
    "cond",
    [
        [*SDXL, *OTHER],
        [entry(OTHER, start_percent=0.2), *SDXL],
        [entry(OTHER, clip_start_percent=0.2), *SDXL],
        [entry(OTHER, start_percent=0.0, end_percent=0.0), *SDXL],
        [entry(SDXL, start_percent=0.0, end_percent=0.1), *OTHER],
        [entry(SDXL, start_percent=0.0, clip_start_percent=0.0, clip_end_percent=0.5), *OTHER],
        [entry(OTHER, area=(8, 8, 0, 0)), *SDXL],
        [entry(OTHER, mask=HALF), *SDXL],
        [entry(SDXL, area=(8, 8, 0, 0)), entry(OTHER, area=(8, 8, 0, 8))],
        [entry(SDXL, area=(8, 8, 0, 0)), entry(OTHER, start_percent=0.2)],
        # what covers everything is not partial
        [entry(SDXL, mask=torch.ones(1, 8, 8)), *OTHER],
        [entry(SDXL, mask=torch.full((1, 8, 8), 0.5), mask_strength=0.5), *OTHER],
        [entry(SDXL, area=(12, 10, 0, 0)), *OTHER],
        [entry(SDXL, area=(64, 64, 0, 0)), *OTHER],
        [entry(SDXL, area=("percentage", 1.0, 1.0, 0.0, 0.0)), *OTHER],
        [entry(OTHER, area=(12, 9, 0, 0)), *SDXL],
        [entry(OTHER, area=(12, 10, 0, 1)), *SDXL],
        [entry(OTHER, area=("percentage", 1.0, 0.5, 0.0, 0.0)), *SDXL],
        [entry(OTHER, area=("percentage", 1.0, 1.0, 0.5, 0.0)), *SDXL],
        # what has no effect does not count
        [entry(OTHER, strength=0.0), *SDXL],
        [entry(OTHER, mask=torch.ones(1, 8, 8), mask_strength=0.0), *SDXL],
        [entry(OTHER, mask=torch.zeros(1, 8, 8)), *SDXL],
        [entry(OTHER, strength=0.0), entry(SDXL, mask=HALF)],
        # a default fills what the others leave
        [entry(OTHER, default=True), *SDXL],
        [entry(OTHER, mask=HALF), entry(SDXL, default=True)],
    ],
)
def test_the_entry_that_covers_the_picture_at_the_start_counts(prompt_embeds, cond):
    assert torch.equal(prompt_embeds(cond), SDXL[0][0])
    assert torch.equal(prompt_embeds(convert_cond(cond)), SDXL[0][0])  # as a guider keeps it


shares = st.sampled_from([-0.1, 0.0, 0.05, 0.3, 0.5, 0.7, 1.0])
areas = st.tuples(*[st.integers(1, 14)] * 2, *[st.sampled_from([0, 0, 1, 5])] * 2) | st.tuples(
    st.just("percentage"), *[st.sampled_from([0.2, 0.5, 0.96, 1.0])] * 2, *[st.sampled_from([0.0, 0.04, 0.3])] * 2
)
masks = st.sampled_from([torch.ones(1, 96, 80), torch.zeros(1, 96, 80), HALF, torch.full((1, 8, 8), 0.1), HALF[0]])
strengths = st.sampled_from([0.0, 0.5, 1.0])
options = st.fixed_dictionaries(
    {},
    optional={
        "start_percent": shares,
        "end_percent": shares,
        "clip": st.tuples(shares, shares),
        "area": areas,
        "mask": masks,
        "strength": strengths,
        "mask_strength": strengths,
    },
)


@settings(max_examples=400)
@given(options, st.sampled_from(["EPS", "FLOW", "EDM"]), st.sampled_from([0, 1, 4, 9]))
@example({"end_percent": 0.0}, "FLOW", 0)  # acts at the first step: flow's share 0 is its highest sigma
def test_who_acts_at_the_start_and_where_is_as_comfyui_weighs_it(pack, options, model_type, step):
    """Against the weights that sampling's first step gives to an entry, from wherever on the schedule it starts."""
    if clip := options.pop("clip", None):
        options |= {"clip_start_percent": clip[0], "clip_end_percent": clip[1]}
    model = MODELS[model_type]
    model_sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, "normal", 10)[step:]
    x = torch.zeros(1, 4, 12, 10)
    inner_model = SimpleNamespace(model_sampling=model_sampling)
    conds = [{**options, "model_conds": {}, "uuid": 0}]
    comfy.samplers.resolve_areas_and_cond_masks_multidim(conds, x.shape[2:], "cpu")
    comfy.samplers.calculate_start_end_timesteps(inner_model, conds)
    weighed = comfy.samplers.get_area_and_mult(conds[0], x, sigmas[:1])
    ours, start = pack.nodes.conditioning, pack.nodes.conditioning.start_at(model, sigmas, x.shape)
    assert ours.is_active(options, start) == (weighed is not None)
    if weighed is None:
        return
    # where an area lies outside of a mask, ComfyUI weighs it 0 though it is one
    if "area" not in options or "mask" not in options:
        assert ours.has_effect(options) == bool(weighed.mult.any())
    if ours.has_effect(options):
        assert ours.covers(options, x.shape[2:]) == (weighed.mult.shape == x.shape and bool((weighed.mult > 0).all()))


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        ([], "The conditioning is empty"),
        ([entry(SDXL, area=0.5)], "an area no"),
        ([entry(SDXL, mask="left")], "A mask of the conditioning is no tensor"),
        ([entry(SDXL, start_percent=0.1)], "No part of the conditioning is active when sampling starts"),
        ([entry(SDXL, start_percent=0.0, end_percent=0.0)], "No part of the conditioning is active"),
        ([entry(SDXL, strength=0.0)], "Every prompt of the conditioning has strength 0 or an empty mask"),
        ([entry(SDXL, mask=torch.zeros(1, 8, 8))], "Every prompt of the conditioning has strength 0 or an empty mask"),
        ([[None, {}]], "no prompt embedding"),
        ([[torch.zeros(1, 0, 2048), {}]], "no prompt embedding"),
        ([[torch.zeros(0, 77, 2048), {}]], "no prompt embedding"),
        ([[torch.zeros(77, 2048), {}]], "no prompt embedding"),
    ],
)
def test_without_a_prompt_is_refused(prompt_embeds, pack, cond, words):
    for stored in (cond, convert_cond(cond)):
        with pytest.raises(pack.npnet_core.errors.InputError, match=words):
            prompt_embeds(stored)


def test_prompts_with_a_value_beside_every_key(prompt_embeds):
    """As NegPip encodes them: the value of a token of negative weight has the other sign."""
    keys, signs = conditioning("sdxl", 1, tokens=154)[0][0], torch.ones(1, 154, 1)
    signs[:, 3] = -1
    both = torch.stack([keys, keys * signs], 2).flatten(1, 2)
    assert both.shape == (1, 308, 2048)
    assert torch.equal(prompt_embeds([[both, SDXL[0][1]]]), keys)


@pytest.mark.parametrize(
    ("conds", "expected"),
    [
        ({"positive": SDXL, "negative": OTHER}, SDXL),
        ({"xt_positive": SDXL, "xt_negative": OTHER, "yt_positive": OTHER}, SDXL),
        ({"yt_positive": OTHER, "positive": SDXL}, SDXL),
        ({"negative": OTHER, "positives": OTHER}, None),
        ({}, None),
    ],
)
def test_the_positive_prompt_of_a_guider(pack, conds, expected):
    assert pack.nodes.conditioning.positive_of(conds) is expected


@pytest.mark.parametrize(("came", "family"), [("sdxl", "sdxl"), ("hunyuan_dit", "hunyuan-dit")])
def test_the_conditioning_is_not_changed(prompt_embeds, came, family):
    cond, before = conditioning(came, tokens=100), conditioning(came, tokens=100)
    prompt_embeds(cond, family)
    prompt_embeds(convert_cond(cond), family)
    assert torch.equal(cond[0][0], before[0][0])
    assert cond[0][1].keys() == before[0][1].keys()
