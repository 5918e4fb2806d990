"""Re-denoise (Model): samplers start from what Re-denoise Pair makes, with their own conditionings and progress."""

from __future__ import annotations

import comfy.hooks
import comfy.model_management
import comfy.utils
import pytest
import torch
from comfy.model_base import ModelType

import nodes
from tests.nodes.conditionings import conditioning
from tests.nodes.flow_prompts import HERE, flow_prompts
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.sampling import GOLDEN, SEED, custom_sample, empty, ksample, picture, source_noise, watched
from tests.nodes.tiny_pack.flow import tiny_flow
from tests.nodes.tiny_pack.models import tiny_sdxl

OPTIONS = {"cfg": 4.0, "inversion_cfg": 1.5, "depth": 2, "inversion": "fixed-point"}
POSITIVE, NEGATIVE = conditioning("sdxl", 1), conditioning("sdxl", 2)
STEPS = {"steps": 6, "scheduler": "simple"}


def sdxl(model_type=ModelType.EPS):
    return tiny_sdxl(model_type=model_type), POSITIVE, NEGATIVE


def flow(name):
    return tiny_flow(name), *flow_prompts(name)


@pytest.fixture
def target_of(call):
    """The target noise of Re-denoise Pair for what samples with STEPS."""

    def run(model, positive, negative, latent, **options):
        (noise,) = call("RandomNoise", noise_seed=SEED)
        (sigmas,) = call("BasicScheduler", model=model, denoise=1.0, **STEPS)
        inputs = {"model": model, "positive": positive, "negative": negative, "noise": noise, "sigmas": sigmas}
        return call("NPNetRedenoisePair", latent_image=latent, rounds=1, **inputs, **{**OPTIONS, **options})[2].target

    return run


@pytest.fixture
def patch(call):
    """The model behind Re-denoise (Model), and the list of noises that sampling goes on with."""
    return lambda model, **options: watched(call("NPNetRedenoisePatch", model=model, **{**OPTIONS, **options})[0])


MASK = torch.stack([torch.zeros(96, 80), torch.ones(96, 80)])
MASK[0, :, 40:] = 1
CASES = {
    "SDXL": (lambda: sdxl(), {}, {}),
    "SDXL, v": (lambda: sdxl(ModelType.V_PREDICTION), {}, {}),
    "SDXL, flow": (lambda: sdxl(ModelType.FLOW), {}, {}),
    "SDXL, the paper's": (lambda: sdxl(), {"depth": 1, "inversion": "exact"}, {}),
    "SDXL, released": (lambda: sdxl(), {"depth": 1, "inversion": "released"}, {}),
    "SDXL, a mask for each": (lambda: sdxl(), {}, {"noise_mask": MASK}),
    **{name: (lambda name=name: flow(name), {}, {}) for name in HERE if name != "schnell"},
    **{
        f"{name}, a mask": (lambda name=name: flow(name), {}, {"noise_mask": MASK[:1]})
        for name in HERE
        if name == "anima"
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_start_is_the_target_of_redenoise_pair(patch, target_of, case):
    make, options, more = CASES[case]
    model, positive, negative = make()
    latent = {**empty(2), **more}
    patched, seen = patch(model, **options)
    latents = ksample(patched, positive, negative, latent, **STEPS)
    expected = target_of(model, positive, negative, latent, **options)
    assert torch.equal(seen[-1], expected)
    source = source_noise({"samples": torch.zeros_like(expected)})
    assert torch.linalg.vector_norm(expected - source) > 1e-4 * torch.linalg.vector_norm(source)
    ordinary = ksample(model, positive, negative, latent, **STEPS)
    assert latents.isfinite().all()
    assert not torch.allclose(latents, ordinary)


def test_every_sampler_and_loras_hooks_areas_and_controlnets_of_the_conditioning(call, patch, target_of):
    """With a hook that scales the weights, an area and SamplerCustomAdvanced."""
    model, positive, negative = sdxl()
    hook = comfy.hooks.WeightHook()
    key = "diffusion_model.out.2.weight"
    shape = model.model.diffusion_model.out[2].weight
    hook.weights, hook.need_weight_init = {key: ("diff", (torch.full_like(shape, 0.01),))}, False
    group = comfy.hooks.HookGroup()
    group.add(hook)
    hooked = [
        [positive[0][0], {**positive[0][1], "hooks": group}],
        [NEGATIVE[0][0], {**NEGATIVE[0][1], "area": (6, 6, 0, 0)}],
    ]
    (noise,) = call("RandomNoise", noise_seed=SEED)
    patched, seen = patch(model)
    custom_sample(noise, patched, hooked, negative, empty(), **STEPS)
    assert torch.equal(seen[-1], target_of(model, hooked, negative, empty()))
    assert not torch.allclose(seen[-1], target_of(model, positive, negative, empty()))


def test_the_guidance_of_a_dual_guider_does_not_count(call, patch, target_of):
    model, positive, negative = sdxl()
    patched, seen = patch(model)
    (guider,) = call(
        "DualCFGGuider", model=patched, cond1=positive, cond2=conditioning("sdxl", 3), negative=negative, cfg_conds=3.0,
        cfg_cond2_negative=2.0, style="regular",
    )  # fmt: skip
    (noise,) = call("RandomNoise", noise_seed=SEED)
    custom_sample(noise, patched, positive, negative, empty(), guider=guider, **STEPS)
    assert torch.equal(seen[-1], target_of(model, positive, negative, empty()))


def test_cfg_progress_and_an_interrupt(run_graph, monkeypatch, call):
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0, raising=False)
    sampled = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "seed": SEED}
    sampled |= {"steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    graph = {
        "model": ("TinyTestModel", {"seed": 0}),
        "positive": ("CLIPTextEncode", {"text": "a red fox", "clip": ["model", 1]}),
        "negative": ("CLIPTextEncode", {"text": "", "clip": ["model", 1]}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 48, "batch_size": 1}),
        "patch": ("NPNetRedenoisePatch", {"model": ["model", 0], **OPTIONS}),
        "sampled": ("KSampler", {"model": ["patch", 0], **sampled}),
        "end": ("PreviewAny", {"source": ["sampled", 0]}),
    }
    graph = {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in graph.items()}
    steps = []
    run_graph(graph, on_progress=lambda node, value, total: steps.append((node, value, total)))
    assert [step for step in steps if step[0] == "sampled"] == [("sampled", i, 4) for i in (1, 2, 3, 4)]

    model = tiny_sdxl()
    (patched,) = call("NPNetRedenoisePatch", model=model, **OPTIONS)
    (guider,) = call("CFGGuider", model=patched, positive=POSITIVE, negative=NEGATIVE, cfg=3.0)
    (noise,) = call("RandomNoise", noise_seed=SEED)
    expected = custom_sample(noise, patched, POSITIVE, NEGATIVE, empty(), guider=guider, **STEPS)
    forward = model.model.diffusion_model.forward

    def stopped(*args, **kwargs):
        nodes.interrupt_processing()
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model.diffusion_model, "forward", stopped)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        custom_sample(noise, patched, POSITIVE, NEGATIVE, empty(), guider=guider, **STEPS)
    assert (guider.cfg, guider.model_patcher) == (3.0, patched)
    monkeypatch.setattr(model.model.diffusion_model, "forward", forward)  # and the next run is well
    assert torch.equal(custom_sample(noise, patched, POSITIVE, NEGATIVE, empty(), guider=guider, **STEPS), expected)


def test_where_sampling_does_not_start_from_noise_nothing_changes(call, patch, caplog):
    model, positive, negative = sdxl()
    patched, _ = patch(model)
    with caplog.at_level("INFO"):
        image_to_image = ksample(patched, positive, negative, picture(), denoise=0.5)
    assert torch.equal(image_to_image, ksample(model, positive, negative, picture(), denoise=0.5))
    assert "sampling does not start from noise here" in caplog.text
    (noise,) = call("DisableNoise")
    expected = custom_sample(noise, model, positive, negative, empty())
    assert torch.equal(custom_sample(noise, patched, positive, negative, empty()), expected)


# -- guidance ---------------------------------------------------------------------------------------------------------


def told(cond: list, guidance: float | None) -> list:
    return [[embeds, {**options, "guidance": guidance}] for embeds, options in cond]


def evaluations(model, monkeypatch) -> list[tuple[int, float | None]]:
    """Rows and guidance of each call of a network."""
    calls, forward = [], model.model.diffusion_model.forward

    def count(x, *args, guidance=None, **kwargs):
        calls.append((len(x), None if guidance is None else guidance[0].item()))
        return forward(x, *args, guidance=guidance, **kwargs)

    monkeypatch.setattr(model.model.diffusion_model, "forward", count)
    return calls


def test_an_embedding_takes_both_guidances_and_no_negative_prompt(call, patch, target_of, monkeypatch):
    model, positive, _ = flow("flux")
    positive = told(positive, 3.5)
    patched, seen = patch(model, depth=1, inversion="exact")
    calls = evaluations(model, monkeypatch)
    (guider,) = call("BasicGuider", model=patched, conditioning=positive)
    (noise,) = call("RandomNoise", noise_seed=SEED)
    custom_sample(noise, patched, positive, [], empty(), guider=guider, **STEPS)
    assert calls[:3] == [(1, 4.0), (1, 1.5), (1, 3.5)]  # then the sampler's own
    assert torch.equal(seen[-1], target_of(model, positive, positive, empty(), depth=1, inversion="exact"))


def test_a_pair_by_embedding_is_euler_down_and_up(call, target_of):
    model, positive, _ = flow("flux")
    (sigmas,) = call("BasicScheduler", model=model, denoise=1.0, **STEPS)
    target = target_of(model, positive, positive, empty(), depth=1, inversion="exact")
    x = source_noise({"samples": torch.zeros_like(target)})
    embeds, pooled = positive[0][0], positive[0][1]["pooled_output"]

    def velocity(x, sigma, guidance):
        model_told = {"c_crossattn": embeds, "y": pooled, "guidance": torch.tensor([guidance])}
        return (x - model.model.apply_model(x, sigma.reshape(1), **model_told)) / sigma

    with torch.inference_mode():
        lower = x + (sigmas[1] - sigmas[0]) * velocity(x, sigmas[0], 4.0)
        expected = lower + (sigmas[0] - sigmas[1]) * velocity(lower, sigmas[1], 1.5)
    torch.testing.assert_close(target, expected, rtol=1e-4, atol=1e-4)


def test_the_pair_says_how_guidance_entered_and_who_redenoised(call, comfy_base):
    (noise,) = call("RandomNoise", noise_seed=SEED)
    inputs = {"noise": noise, "latent_image": empty(), "rounds": 1, **OPTIONS}

    def pair(model, positive, negative, **more):
        (sigmas,) = call("BasicScheduler", model=model, denoise=1.0, **STEPS)
        inputs.update(model=model, positive=positive, negative=negative, sigmas=sigmas)
        return call("NPNetRedenoisePair", **inputs, **more)[2]

    guided, embedded = pair(*sdxl()), pair(*flow("flux"))
    assert (guided.guidance, guided.redenoised_with) == ("cfg", None)
    assert (embedded.guidance, embedded.redenoised_with) == ("embedding", None)
    switched_off = pair(tiny_flow("flux"), told(flow_prompts("flux")[0], None), flow_prompts("flux")[1])
    assert switched_off.guidance == "cfg"
    siblings = [pair(*sdxl(), redenoise_model=tiny_sdxl(seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(siblings[0].source, guided.source)
    assert not torch.allclose(siblings[0].target, guided.target)
    same, again, other = (each.redenoised_with for each in siblings)
    assert same == again
    assert other is not None
    call("NPNetSavePair", noise_pair=embedded, prompt="fox", dataset="embedded", base_model="", sampling="")


def test_the_sibling_redenoises_and_the_model_samples(patch, target_of):
    model, positive, negative = sdxl(ModelType.FLOW)
    sibling = tiny_sdxl(seed=1, model_type=ModelType.FLOW)
    patched, seen = patch(model, redenoise_model=sibling)
    ksample(patched, positive, negative, empty(), **STEPS | {"cfg": 1.0})
    assert torch.equal(seen[-1], target_of(sibling, positive, negative, empty()))


@pytest.mark.skipif("flux" not in HERE, reason="this ComfyUI has no FLUX.1")
def test_schnell_is_refused_without_its_sibling(call, patch, target_of):
    model, positive, negative = flow("schnell")
    patched, seen = patch(model)
    with pytest.raises(ValueError, match=r"FLUX\.1-schnell, a distilled model .* as redenoise_model\.$"):
        ksample(patched, positive, negative, empty(), **STEPS)
    with pytest.raises(ValueError, match=r"FLUX\.1-schnell, a distilled model .* as redenoise_model\.$"):
        target_of(model, positive, negative, empty())
    patched, seen = patch(model, redenoise_model=tiny_flow("flux"))
    ksample(patched, positive, negative, empty(), **STEPS | {"cfg": 1.0})
    assert len(seen) == 1


# -- wrong input ------------------------------------------------------------------------------------------------------


def test_what_is_sampled_as_distilled_models_are_is_refused(call, patch):
    model, positive, negative = sdxl(ModelType.FLOW)
    (zeroed,) = call("ConditioningZeroOut", conditioning=negative)
    patched, _ = patch(model)
    with pytest.raises(ValueError, match=r"cfg is 1 and its negative prompt zeroed.*redenoise_model, or for another"):
        ksample(patched, positive, zeroed, empty(), **STEPS | {"cfg": 1.0})
    ksample(patched, positive, zeroed, empty(), **STEPS)
    ksample(patched, positive, negative, empty(), **STEPS | {"cfg": 1.0})


def test_a_guider_of_two_guidances_is_not_taken_for_an_unguided_one(call, patch):
    """Whose `cfg` stays 1 whatever it is given."""
    model, positive, negative = sdxl(ModelType.FLOW)
    (zeroed,) = call("ConditioningZeroOut", conditioning=negative)
    patched, seen = patch(model)
    (guider,) = call(
        "DualCFGGuider", model=patched, cond1=positive, cond2=conditioning("sdxl", 3), negative=zeroed, cfg_conds=3.0,
        cfg_cond2_negative=2.0, style="regular",
    )  # fmt: skip
    (noise,) = call("RandomNoise", noise_seed=SEED)
    custom_sample(noise, patched, positive, zeroed, empty(), guider=guider, **STEPS)
    assert not torch.allclose(seen[-1], source_noise(empty()))


def test_a_guider_of_two_models(call, patch, target_of):
    if "DualModelGuider" not in nodes.NODE_CLASS_MAPPINGS:
        pytest.skip("this ComfyUI has no DualModelGuider")
    model, positive, negative = sdxl()
    patched, seen = patch(model)
    (noise,) = call("RandomNoise", noise_seed=SEED)

    def sample(other):
        inputs = {"model": patched, "model_negative": other, "positive": positive, "negative": negative, "cfg": 3.0}
        (guider,) = call("DualModelGuider", **inputs)
        custom_sample(noise, patched, positive, negative, empty(), guider=guider, **STEPS)

    sample(model)  # the same one for both is ordinary guidance
    assert torch.equal(seen[-1], target_of(model, positive, negative, empty()))
    with pytest.raises(ValueError, match="DualModelGuider samples with another model for the negative prompt"):
        sample(tiny_sdxl(seed=1))


def test_a_guider_without_a_negative_prompt(call, patch):
    model, positive, _ = sdxl()
    patched, _ = patch(model)
    (guider,) = call("BasicGuider", model=patched, conditioning=positive)
    (noise,) = call("RandomNoise", noise_seed=SEED)
    with pytest.raises(ValueError, match=r"guidance 4 and 1\.5 needs a negative prompt and the guider has none"):
        custom_sample(noise, patched, positive, [], empty(), guider=guider, **STEPS)


def test_a_schedule_shorter_than_the_depth(patch):
    patched, _ = patch(tiny_sdxl(), depth=3)
    with pytest.raises(ValueError, match=r"Re-denoising to depth 3 needs falling sigmas, the first 4 above 0"):
        ksample(patched, POSITIVE, NEGATIVE, empty(), steps=3)
    with pytest.raises(ValueError, match="needs 4 noise levels and got 3"):
        ksample(patched, POSITIVE, NEGATIVE, empty(), steps=2)


def test_two_patches_that_change_the_start(call, pack, comfy_base):
    (npnet,) = call("NPNetLoad", npnet_name=save_tiny_npnet(pack, comfy_base))
    model = tiny_sdxl()
    (golden,) = call("NPNetModelPatch", model=model, npnet=npnet, **GOLDEN)
    (redenoised,) = call("NPNetRedenoisePatch", model=model, **OPTIONS)
    both = "both change the noise that sampling starts from"
    for patched in (golden, redenoised):
        with pytest.raises(ValueError, match=rf"came before Re-denoise \(Model\), and {both}"):
            call("NPNetRedenoisePatch", model=patched, **OPTIONS)
    with pytest.raises(
        ValueError, match=rf"^Re-denoise \(Model\) came before NPNet Golden Noise \(Model\), and {both}"
    ):
        call("NPNetModelPatch", model=redenoised, npnet=npnet, **GOLDEN)


def test_a_sibling_of_another_kind(call, patch):
    model, positive, negative = sdxl()
    patched, _ = patch(model, redenoise_model=tiny_flow("flux"))
    with pytest.raises(ValueError, match="redenoise_model of kind Flux came for a model of kind SDXL"):
        ksample(patched, positive, negative, empty(), **STEPS)


@pytest.mark.parametrize(
    ("name", "changes"), [("flux", {"context_in_dim": 3584, "vec_in_dim": None}), ("z-image", {"cap_feat_dim": 2304})]
)
def test_a_sibling_that_reads_other_prompts(call, patch, name, changes):
    """LongCat-Image is built as FLUX.1, Lumina 2 as Z-Image."""
    if name not in HERE:
        pytest.skip(f"this ComfyUI has no {name}")
    model, positive, negative = flow(name)
    sibling = tiny_flow(name)
    sibling.model.model_config.unet_config = sibling.model.model_config.unet_config | changes
    patched, _ = patch(model, redenoise_model=sibling)
    with pytest.raises(ValueError, match="one with the same latents and prompts was expected"):
        ksample(patched, positive, negative, empty(), **STEPS)


def test_redenoise_pair_leaves_the_patch_out(target_of, patch):
    model = tiny_sdxl()
    patched, _ = patch(model)
    assert torch.equal(target_of(patched, POSITIVE, NEGATIVE, empty()), target_of(model, POSITIVE, NEGATIVE, empty()))
