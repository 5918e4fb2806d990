"""Golden noise together with everything else that happens in sampling.

Whatever is in the graph, both nodes must start the sampler at the golden noise of the expected prompt, as the core
computes it, and end in the same latents.
"""

from __future__ import annotations

import logging

import comfy.model_management
import comfy.samplers
import comfy.utils
import latent_preview
import pytest
import torch
from comfy.model_base import ModelType
from comfy.patcher_extension import WrappersMP
from comfy_execution.utils import CurrentNodeContext
from server import PromptServer

import nodes
from tests.nodes.conditionings import conditioning
from tests.nodes.graphs import call
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.sampling import (
    GOLDEN,
    SEED,
    SETTINGS,
    custom_sample,
    empty,
    ksample,
    picture,
    save_lora,
    source_noise,
    watched,
)
from tests.nodes.tiny_pack.models import tiny_controlnet, tiny_hunyuan_dit, tiny_sdxl
from tests.nodes.tiny_pack.text import tiny_hunyuan_clip, tiny_sdxl_clip

POSITIVE, NEGATIVE = conditioning("sdxl", 1), conditioning("sdxl", 2)
OTHER = conditioning("sdxl", 3)


@pytest.fixture(scope="module")
def family(request):
    return getattr(request, "param", "sdxl")


@pytest.fixture(scope="module")
def file(pack, comfy_base, family):
    return comfy_base / "models" / "npnet" / save_tiny_npnet(pack, comfy_base, family)


@pytest.fixture(scope="module")
def npnet(file):
    return call("NPNetLoad", npnet_name=file.name)[0]


@pytest.fixture(scope="module")
def golden(pack, file):
    """golden_noise of the core for the same file."""
    net = pack.npnet_core.checkpoint.load_npnet(file)
    return lambda noise, cond: pack.npnet_core.golden.golden_noise(net, noise, cond[0][0])


@pytest.fixture
def patch(npnet):
    return lambda model: call("NPNetModelPatch", model=model, npnet=npnet, **GOLDEN)[0]


@pytest.fixture
def noise_node(npnet):
    def make(cond):
        (noise,) = call("RandomNoise", noise_seed=SEED)
        return call("NPNetNoise", npnet=npnet, noise=noise, conditioning=cond, **GOLDEN)[0]

    return make


@pytest.fixture
def acts(patch, noise_node, golden, caplog):
    """Assert that both nodes start at golden noise for `expected` and give the same latents; those are returned."""

    def check(model, positive, negative, latent, expected=None, **changes):
        patched, seen = watched(patch(model))
        with caplog.at_level(logging.INFO):
            by_patch = ksample(patched, positive, negative, latent, **changes)
        assert "NPNet: " not in caplog.text  # which is what is said where the patch does not act
        by_noise = custom_sample(noise_node(positive), model, positive, negative, latent, **changes)
        assert torch.equal(by_patch, by_noise)
        (start,) = seen
        start_of_core = golden(source_noise(latent), expected or positive)
        torch.testing.assert_close(start, start_of_core, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(by_patch, ksample(model, positive, negative, latent, **changes), atol=1e-3)
        assert by_patch.isfinite().all()
        return by_patch

    return check


# ---- samplers, schedulers, guiders, kinds of models ------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler_name", ["euler", "euler_ancestral", "dpmpp_2m_sde", "heun", "ddim", "lcm", "dpm_fast"]
)
def test_samplers(acts, sampler_name):
    acts(tiny_sdxl(), POSITIVE, NEGATIVE, empty(), sampler_name=sampler_name)


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_schedulers(acts, scheduler):
    """ddim_uniform begins below the highest sigma: there it is the empty latent that tells."""
    acts(tiny_sdxl(), POSITIVE, NEGATIVE, empty(), scheduler=scheduler, steps=4)


def test_an_empty_latent_is_nothing_but_noise_at_any_strength(acts):
    acts(tiny_sdxl(), POSITIVE, NEGATIVE, empty(), denoise=0.5)


@pytest.mark.parametrize("model_type", ["EPS", "V_PREDICTION", "V_PREDICTION_EDM", "EDM", "FLOW"])
@pytest.mark.parametrize("latent", [empty(), picture()], ids=["empty", "picture"])
def test_kinds_of_models(acts, model_type, latent):
    acts(tiny_sdxl(model_type=ModelType[model_type]), POSITIVE, NEGATIVE, latent)


def test_patched_model_sampling_decides_what_full_noise_is(acts):
    (model,) = call(
        "ModelSamplingContinuousEDM", model=tiny_sdxl(), sampling="v_prediction", sigma_max=5.0, sigma_min=0.03
    )
    acts(model, POSITIVE, NEGATIVE, picture())


def test_beside_a_pack_that_replaces_max_denoise(acts, monkeypatch):
    """Some do as soon as they are installed, and ask for more of the model than is there before sampling begins."""
    replaced = comfy.samplers.Sampler.max_denoise

    def max_denoise(self, model_wrap, sigmas):
        assert model_wrap.inner_model.current_patcher.model_options is not None
        return replaced(self, model_wrap, sigmas)

    monkeypatch.setattr(comfy.samplers.Sampler, "max_denoise", max_denoise)
    acts(tiny_sdxl(), POSITIVE, NEGATIVE, picture())


def test_beside_a_pack_that_passes_no_latent_shapes(patch):
    """None is the default of ComfyUI's own outer_sample, where it has that argument."""
    model, default = tiny_sdxl(), patch(tiny_sdxl())
    model.add_wrapper_with_key(
        WrappersMP.OUTER_SAMPLE,
        "before",
        lambda executor, *args, **more: executor(*args, **{**more, "latent_shapes": None}),
    )
    model = patch(model)

    def after(executor, *args, latent_shapes, **more):
        assert latent_shapes is None
        return executor(*args, **more)

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "after", after)
    assert torch.equal(*(ksample(each, POSITIVE, NEGATIVE, empty()) for each in (model, default)))


@pytest.mark.parametrize("start", [0, 1])
def test_the_first_of_several_stages(patch, noise_node, start):
    """KSampler Advanced acts on the stage that starts at full noise, and SamplerCustom as KSampler does."""
    model, seen = watched(patch(tiny_sdxl()))
    settings = {k: SETTINGS[k] for k in ("steps", "cfg", "sampler_name", "scheduler")}
    (out,) = call(
        "KSamplerAdvanced", model=model, positive=POSITIVE, negative=NEGATIVE, latent_image=picture(),
        noise_seed=SEED, add_noise="enable", start_at_step=start, end_at_step=2,
        return_with_leftover_noise="enable", **settings,
    )  # fmt: skip
    wanted = noise_node(POSITIVE).generate_noise(picture()) if start == 0 else source_noise(picture())
    assert torch.equal(seen[0], wanted)
    call(
        "KSamplerAdvanced", model=model, positive=POSITIVE, negative=NEGATIVE, latent_image=out,
        noise_seed=SEED, add_noise="disable", start_at_step=2, end_at_step=3,
        return_with_leftover_noise="disable", **settings,
    )  # fmt: skip
    assert not seen[1].any()


def test_sampler_custom(patch, noise_node):
    (sampler,) = call("KSamplerSelect", sampler_name="euler")
    (sigmas,) = call("BasicScheduler", model=tiny_sdxl(), scheduler="normal", steps=3, denoise=1.0)
    out, _ = call(
        "SamplerCustom", model=patch(tiny_sdxl()), positive=POSITIVE, negative=NEGATIVE, latent_image=empty(),
        noise_seed=SEED, add_noise=True, cfg=5.5, sampler=sampler, sigmas=sigmas,
    )  # fmt: skip
    expected = custom_sample(noise_node(POSITIVE), tiny_sdxl(), POSITIVE, NEGATIVE, empty())
    assert torch.equal(out["samples"], expected)


GUIDERS = {
    "CFGGuider": {"positive": POSITIVE, "negative": NEGATIVE, "cfg": 5.5},
    "BasicGuider": {"conditioning": POSITIVE},
    "DualCFGGuider": {
        "cond1": POSITIVE, "cond2": OTHER, "negative": NEGATIVE,
        "cfg_conds": 5.5, "cfg_cond2_negative": 2.0, "style": "regular",
    },
    "PerpNegGuider": {
        "positive": POSITIVE, "negative": NEGATIVE, "empty_conditioning": OTHER, "cfg": 5.5, "neg_scale": 1.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("guider", GUIDERS)
def test_guiders(patch, noise_node, guider):
    def sample(noise, model):
        (made,) = call(guider, model=model, **GUIDERS[guider])
        return custom_sample(noise, model, POSITIVE, NEGATIVE, empty(), guider=made)

    (plain,) = call("RandomNoise", noise_seed=SEED)
    by_patch = sample(plain, patch(tiny_sdxl()))
    assert torch.equal(by_patch, sample(noise_node(POSITIVE), tiny_sdxl()))
    assert not torch.allclose(by_patch, sample(plain, tiny_sdxl()), atol=1e-3)


def test_a_guider_of_two_models(patch, noise_node):
    """The model of the positive prompt is the one that counts."""
    if "DualModelGuider" not in nodes.NODE_CLASS_MAPPINGS:
        pytest.skip("this ComfyUI has no DualModelGuider")

    def sample(noise, model):
        prompts = {"positive": POSITIVE, "negative": NEGATIVE, "cfg": 5.5}
        (guider,) = call("DualModelGuider", model=model, model_negative=tiny_sdxl(), **prompts)
        return custom_sample(noise, model, POSITIVE, NEGATIVE, empty(), guider=guider)

    (plain,) = call("RandomNoise", noise_seed=SEED)
    assert torch.equal(sample(plain, patch(tiny_sdxl())), sample(noise_node(POSITIVE), tiny_sdxl()))


class Named(comfy.samplers.CFGGuider):
    """A guider that gives its prompts names of its own, as sampler packs do."""

    def __init__(self, model, positive, negative, names):
        super().__init__(model)
        self.names = names
        self.inner_set_conds(dict(zip(names, (positive, negative), strict=True)))
        self.set_cfg(5.5)

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006  as in ComfyUI
        positive, negative = (self.conds[name] for name in self.names)
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, negative, positive, self.cfg, model_options=model_options, seed=seed
        )


@pytest.mark.parametrize("names", [("xt_positive", "xt_negative"), ("my positive", "positive negative")])
def test_guiders_that_name_their_prompts_otherwise(patch, noise_node, names):
    def sample(noise, model):
        guider = Named(model, POSITIVE, NEGATIVE, names)
        return custom_sample(noise, model, POSITIVE, NEGATIVE, empty(), guider=guider)

    (plain,) = call("RandomNoise", noise_seed=SEED)
    assert torch.equal(sample(plain, patch(tiny_sdxl())), sample(noise_node(POSITIVE), tiny_sdxl()))
    assert torch.equal(sample(plain, tiny_sdxl()), custom_sample(plain, tiny_sdxl(), POSITIVE, NEGATIVE, empty()))


def test_a_guider_without_a_positive_prompt_keeps_its_noise_and_says_so(patch, caplog, monkeypatch):
    shown = []
    monkeypatch.setattr(PromptServer.instance, "send_progress_text", lambda *what: shown.append(what))
    model, seen = watched(patch(tiny_sdxl()))
    guider = Named(model, POSITIVE, NEGATIVE, ("left", "right"))
    (noise,) = call("RandomNoise", noise_seed=SEED)
    with caplog.at_level(logging.WARNING), CurrentNodeContext("prompt", "42"):
        custom_sample(noise, model, POSITIVE, NEGATIVE, empty(), guider=guider)
    assert torch.equal(seen[0], source_noise(empty()))
    said = "NPNet: sampling has conditionings left, right and no positive one, so the noise is left as it is"
    assert said in caplog.text
    ((text, node_id),) = shown
    assert (text.startswith(said), node_id) == (True, "42")


# ---- batches, masks, prompts -----------------------------------------------------------------------------------------


def test_batches_are_their_images_one_by_one(acts):
    whole = acts(tiny_sdxl(), POSITIVE, NEGATIVE, empty(3))
    for i in range(3):
        alone = acts(tiny_sdxl(), POSITIVE, NEGATIVE, {**empty(), "batch_index": [i]})
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("prompts", "images"), [(2, 1), (2, 3), (3, 3)])
def test_prompts_of_another_batch_are_repeated_as_in_sampling(acts, prompts, images):
    positive = conditioning("sdxl", 1, batch=prompts)
    repeated = [[positive[0][0][torch.arange(images) % prompts], {}]]
    whole = acts(tiny_sdxl(), positive, NEGATIVE, empty(images), repeated)
    embeds, pooled = positive[0][0], positive[0][1]["pooled_output"]
    for i in range(images):
        prompt = [[embeds[[i % prompts]], {"pooled_output": pooled[[i % prompts]]}]]
        alone = acts(tiny_sdxl(), prompt, NEGATIVE, {**empty(), "batch_index": [i]})
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-3, atol=1e-3)


def test_inpainting_at_full_noise(acts):
    mask = torch.zeros(1, 96, 80)
    mask[:, :48] = 1
    (latent,) = call("SetLatentNoiseMask", samples=picture(), mask=mask)
    out = acts(tiny_sdxl(), POSITIVE, NEGATIVE, latent)
    torch.testing.assert_close(out[..., 6:, :], picture()["samples"][..., 6:, :])  # what is not painted


def areas() -> list:
    (area,) = call("ConditioningSetArea", conditioning=POSITIVE, width=64, height=64, x=0, y=16, strength=1.0)
    return area


def masked(rows: int = 6, cond: list = POSITIVE, strength: float = 1.0, set_cond_area: str = "mask bounds") -> list:
    mask = torch.zeros(1, 12, 10)
    mask[:, :rows] = 1
    return call("ConditioningSetMask", conditioning=cond, mask=mask, strength=strength, set_cond_area=set_cond_area)[0]


def percentage(cond: list, width: float) -> list:
    return call(
        "ConditioningSetAreaPercentage", conditioning=cond, width=width, height=1.0, x=0.0, y=0.0, strength=1.0
    )[0]


def of_strength(cond: list, strength: float) -> list:
    return call("ConditioningSetAreaStrength", conditioning=cond, strength=strength)[0]


def ranged(cond: list, start: float, end: float) -> list:
    return call("ConditioningSetTimestepRange", conditioning=cond, start=start, end=end)[0]


def combined(one: list, two: list) -> list:
    return call("ConditioningCombine", conditioning_1=one, conditioning_2=two)[0]


def encoded(clip, text: str) -> list:
    return call("CLIPTextEncode", clip=clip, text=text)[0]


# what is connected, and the prompt that golden noise is made for
PROMPTS = {
    "text": lambda: (encoded(tiny_sdxl_clip(), "a (red:1.3) fox"),) * 2,
    "area": lambda: (combined(areas(), OTHER), OTHER),
    "area first of two": lambda: (combined(areas(), areas()), POSITIVE),
    "mask": lambda: (combined(masked(), OTHER), OTHER),
    "default": lambda: (
        call("ConditioningSetDefaultCombine", cond=masked(), cond_DEFAULT=OTHER)[0],
        OTHER,
    ),
    "combine": lambda: (combined(POSITIVE, OTHER), POSITIVE),
    "schedule": lambda: (combined(ranged(OTHER, 0.4, 1.0), ranged(POSITIVE, 0.0, 0.4)), POSITIVE),
    "strength 0": lambda: (combined(of_strength(OTHER, 0.0), POSITIVE), POSITIVE),
    "mask of strength 0": lambda: (combined(masked(12, OTHER, 0.0), POSITIVE), POSITIVE),
    "empty mask": lambda: (combined(masked(0, OTHER, set_cond_area="default"), POSITIVE), POSITIVE),
    "mask that covers everything": lambda: (combined(masked(12, strength=0.7), OTHER), POSITIVE),
    "area that covers everything": lambda: (combined(percentage(POSITIVE, 1.0), OTHER), POSITIVE),
    "area that does not": lambda: (combined(percentage(OTHER, 0.8), POSITIVE), POSITIVE),
    "default that nothing is left for": lambda: (
        call("ConditioningSetDefaultCombine", cond=POSITIVE, cond_DEFAULT=OTHER)[0][::-1],
        POSITIVE,
    ),
    "switched off": lambda: (combined(ranged(OTHER, 0.0, 0.0), POSITIVE), POSITIVE),
    "zeroed": lambda: (call("ConditioningZeroOut", conditioning=POSITIVE)[0], [[torch.zeros(1, 77, 2048), {}]]),
    "concat": lambda: (call("ConditioningConcat", conditioning_to=POSITIVE, conditioning_from=OTHER)[0], POSITIVE),
    "average": lambda: (
        call("ConditioningAverage", conditioning_to=POSITIVE, conditioning_from=OTHER, conditioning_to_strength=0.5)[0],
        [[(POSITIVE[0][0] + OTHER[0][0]) / 2, {}]],
    ),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts(acts, prompt):
    positive, expected = PROMPTS[prompt]()
    acts(tiny_sdxl(), positive, NEGATIVE, empty(2), expected)


def test_a_schedule_that_begins_late_counts_from_there(patch, golden):
    """At denoise 0.5 an empty latent is all noise, and the prompt of the first half is over."""
    model, seen = watched(patch(tiny_sdxl()))
    positive = combined(ranged(OTHER, 0.0, 0.4), ranged(POSITIVE, 0.4, 1.0))
    ksample(model, positive, NEGATIVE, empty(), denoise=0.5)
    torch.testing.assert_close(seen[0], golden(source_noise(empty()), POSITIVE), rtol=1e-5, atol=1e-5)


def test_a_schedule_of_hooks(acts, comfy_base):
    """A LoRA on model and text encoder that ends at half time: two embeddings come, the first one counts."""
    clip = tiny_sdxl_clip()
    name = save_lora(comfy_base / "models/loras/hook.safetensors", clip.cond_stage_model, "text_encoders.")
    (hooks,) = call("CreateHookLora", lora_name=name, strength_model=1.0, strength_clip=1.0)
    (keyframes,) = call("CreateHookKeyframe", strength_mult=1.0, start_percent=0.0)
    (keyframes,) = call("CreateHookKeyframe", strength_mult=0.0, start_percent=0.5, prev_hook_kf=keyframes)
    (hooks,) = call("SetHookKeyframes", hooks=hooks, hook_kf=keyframes)
    (hooked,) = call("SetClipHooks", clip=clip, hooks=hooks, apply_to_conds=True, schedule_clip=True)
    first, second = encoded(hooked, "a red fox")
    assert (first[1]["clip_start_percent"], second[1]["clip_start_percent"]) == (0.0, 0.5)
    assert not torch.allclose(first[0], second[0])
    torch.testing.assert_close(second[0], encoded(clip, "a red fox")[0][0])
    acts(tiny_sdxl(), [second, first], NEGATIVE, empty(), [first])


# ---- LoRA, ControlNet ------------------------------------------------------------------------------------------------


def test_lora(acts, patch, comfy_base):
    model = tiny_sdxl()
    plain = ksample(patch(model), POSITIVE, NEGATIVE, empty())
    name = save_lora(comfy_base / "models/loras/unet.safetensors", model.model.diffusion_model, "diffusion_model.")
    (with_lora,) = call("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=1.0)
    out = acts(with_lora, POSITIVE, NEGATIVE, empty())
    assert not torch.allclose(out, plain, atol=1e-3)
    (lora_last,) = call("LoraLoaderModelOnly", model=patch(model), lora_name=name, strength_model=1.0)
    assert torch.equal(ksample(lora_last, POSITIVE, NEGATIVE, empty()), out)


def test_controlnet(acts, patch):
    hint = torch.rand(1, 96, 80, 3, generator=torch.Generator().manual_seed(4))
    positive, negative = call(
        "ControlNetApplyAdvanced", positive=POSITIVE, negative=NEGATIVE, control_net=tiny_controlnet(), image=hint,
        strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    out = acts(tiny_sdxl(), positive, negative, empty())
    assert not torch.allclose(out, ksample(patch(tiny_sdxl()), POSITIVE, NEGATIVE, empty()), atol=1e-3)


# ---- HunyuanDiT ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["hunyuan-dit"], indirect=True)
@pytest.mark.parametrize("words", [3, 120])
def test_hunyuan_dit_is_cut_to_77_tokens(acts, words):
    """BERT's embedding of a long prompt has as many rows as tokens, of which the net is given 77."""
    (positive,) = call("CLIPTextEncodeHunyuanDiT", clip=tiny_hunyuan_clip(), bert="fox " * words, mt5xl="a red fox")
    embeds = positive[0][0]
    assert embeds.shape[1] == (77 if words == 3 else words + 2)
    acts(tiny_hunyuan_dit(), positive, conditioning("hunyuan_dit"), empty(), [[embeds[:, :77], {}]], steps=1, cfg=1.0)


# ---- previews, interrupts --------------------------------------------------------------------------------------------


def test_previews_are_shown_as_without(patch, monkeypatch):
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    shown = []

    def hook(value, total, preview, **_):
        shown.append((value, total, preview[1].size))

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        for model in (tiny_sdxl(), patch(tiny_sdxl())):
            ksample(model, POSITIVE, NEGATIVE, empty())
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert shown == [(step, 3, (10, 12)) for step in (1, 2, 3)] * 2


def test_an_interrupt_while_sampling(run_graph, file):
    npnet = {"npnet": ["5", 0], **GOLDEN}
    graph = {
        "1": {"class_type": "TinyTestModel", "inputs": {"seed": 0}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "NPNetLoad", "inputs": {"npnet_name": file.name}},
        "6": {"class_type": "NPNetModelPatch", "inputs": {"model": ["1", 0], **npnet}},
        "7": {
            "class_type": "KSampler",
            "inputs": {"model": ["6", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["4", 0]}
            | {"seed": SEED, **SETTINGS},
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["1", 2]}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
    }
    before = run_graph(graph).values["8"][0]
    steps = []

    def interrupt(node_id, value, total):
        steps.append((node_id, value, total))
        nodes.interrupt_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run_graph(graph, on_progress=interrupt)
    assert steps == [("7", 1, 3)]
    assert torch.equal(run_graph(graph).values["8"][0], before)


class Interrupted:
    """A NOISE while which is drawn the user presses Cancel."""

    seed = SEED

    def generate_noise(self, latent):
        nodes.interrupt_processing()
        return source_noise(latent)


def test_an_interrupt_before_the_net_runs(npnet, monkeypatch):
    passes = []
    handle = npnet.patcher.model.register_forward_hook(lambda *_: passes.append(1))
    (noise,) = call("NPNetNoise", npnet=npnet, noise=Interrupted(), conditioning=POSITIVE, **GOLDEN)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        custom_sample(noise, tiny_sdxl(), POSITIVE, NEGATIVE, empty())
    assert passes == []
    noise.npnet.golden_noise(source_noise(empty()), (POSITIVE[0][0], None), 1.0, "truncate")  # the next run is well
    assert passes == [1]
    handle.remove()
