"""Re-denoise Pair in the real ComfyUI: the target starts sampling at exactly the re-denoised latent."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from comfy.model_base import ModelType
from comfy.model_management import InterruptProcessingException
from comfy.samplers import KSAMPLER

from tests.nodes.conditionings import conditioning
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.tiny_pack.models import tiny_sdxl

OPTIONS = {"cfg": 5.5, "inversion_cfg": 1.0, "rounds": 1, "inversion": "exact", "depth": 1}


def empty(batch: int = 1, height: int = 16, width: int = 16) -> dict:
    return {"samples": torch.zeros(batch, 4, height, width)}


@pytest.fixture
def pair_of(call):
    """(source NOISE, target NOISE, NOISE_PAIR) of Re-denoise Pair for a model, a latent and options."""

    def run(model, latent, scheduler="normal", steps=10, seed=7, denoise=1.0, positive=None, **options):
        (noise,) = call("RandomNoise", noise_seed=seed)
        (sigmas,) = call("BasicScheduler", model=model, scheduler=scheduler, steps=steps, denoise=denoise)
        return call(
            "NPNetRedenoisePair",
            model=model,
            positive=positive or conditioning("sdxl", 1),
            negative=conditioning("sdxl", 2),
            noise=noise,
            sigmas=sigmas,
            latent_image=latent,
            **{**OPTIONS, **options},
        )

    return run


@pytest.fixture
def start_of(call):
    """The latent at which SamplerCustomAdvanced starts from a NOISE, and the model as its sampler sees it."""

    def run(model, noise, latent, scheduler="normal", steps=10, denoise=1.0, sampler_function=None):
        seen = {}

        def look(model_k, x, sigmas, extra_args=None, callback=None, disable=None):
            seen["x"] = x.clone()
            return sampler_function(model_k, x, sigmas, extra_args) if sampler_function else x

        (sigmas,) = call("BasicScheduler", model=model, scheduler=scheduler, steps=steps, denoise=denoise)
        (guider,) = call(
            "CFGGuider", model=model, positive=conditioning("sdxl", 1), negative=conditioning("sdxl", 2), cfg=1.0
        )
        call(
            "SamplerCustomAdvanced",
            noise=noise, guider=guider, sampler=KSAMPLER(look), sigmas=sigmas, latent_image=latent,
        )  # fmt: skip
        return seen["x"]

    return run


def euler_there_and_back(model_k, x, sigmas, extra_args, depth=1, iterations=0):
    """Independent of the pack: Euler down and up again in k-diffusion's form, guidance set on the guider."""
    guider = model_k.inner_model

    def denoised(x, sigma, cfg):
        guider.cfg = cfg
        return model_k(x, sigma.expand(len(x)), **extra_args)

    for high, low in pairwise(sigmas[: depth + 1]):
        x = x + (x - denoised(x, high, 5.5)) / high * (low - high)
    for i in reversed(range(depth)):
        high, low, start = sigmas[i], sigmas[i + 1], x
        x = start + (start - denoised(start, low, 1.0)) / low * (high - low)
        for _ in range(iterations):  # the step that leads from the upper level to ``start`` begins with this prediction
            x = start + (start - denoised(x, high, 1.0)) / low * (high - low)
    return x


LATENT = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
MASK = torch.zeros(1, 1, 128, 128)
MASK[..., 64:] = 1


@pytest.mark.parametrize(
    ("model_type", "scheduler", "latent", "denoise", "deeper"),
    [
        (ModelType.EPS, "normal", empty(2), 1.0, {}),
        (ModelType.EPS, "ddim_uniform", empty(2), 1.0, {}),  # begins below the model's highest sigma
        (ModelType.EPS, "normal", empty(2, 13, 22), 1.0, {}),
        (ModelType.EPS, "normal", {"samples": LATENT}, 1.0, {}),
        (ModelType.EPS, "normal", {"samples": LATENT}, 0.6, {}),
        (ModelType.EPS, "normal", {"samples": LATENT, "noise_mask": MASK}, 1.0, {}),
        (ModelType.V_PREDICTION, "normal", empty(2), 1.0, {}),
        (ModelType.FLOW, "normal", empty(2), 1.0, {}),
        (ModelType.FLOW, "normal", {"samples": LATENT, "noise_mask": MASK}, 0.7, {}),
        (ModelType.EPS, "normal", empty(2), 1.0, {"depth": 3}),
        (ModelType.EPS, "normal", empty(2), 1.0, {"depth": 3, "inversion": "fixed-point"}),
        (ModelType.FLOW, "normal", {"samples": LATENT}, 0.7, {"depth": 2, "inversion": "fixed-point"}),
    ],
)
def test_the_target_starts_at_the_redenoised_latent(pair_of, start_of, model_type, scheduler, latent, denoise, deeper):
    model = tiny_sdxl(model_type=model_type)
    source, target, _ = pair_of(model, latent, scheduler, denoise=denoise, **deeper)
    way = {"depth": deeper.get("depth", 1), "iterations": int("inversion" in deeper)}
    expected = {}

    def reference(model_k, x, sigmas, extra_args):
        expected["x"] = euler_there_and_back(model_k, x, sigmas, extra_args, **way)
        return x

    before = start_of(model, source, latent, scheduler, denoise=denoise, sampler_function=reference)
    start = start_of(model, target, latent, scheduler, denoise=denoise)
    assert torch.linalg.vector_norm(start - before) > 1e-3 * torch.linalg.vector_norm(before)  # it did something
    error = torch.linalg.vector_norm(start - expected["x"]) / torch.linalg.vector_norm(expected["x"])
    assert error < 1e-6


def test_rounds_repeat_it(pair_of):
    model = tiny_sdxl()
    once = pair_of(model, empty())[2]
    twice = pair_of(model, empty(), rounds=2)[2]
    assert torch.equal(once.source, twice.source)
    assert not torch.allclose(once.target, twice.target)


def test_released_differs_and_has_no_flow_form(pair_of):
    model = tiny_sdxl()
    exact, released = pair_of(model, empty())[2], pair_of(model, empty(), inversion="released")[2]
    assert not torch.allclose(exact.target, released.target)
    with pytest.raises(ValueError, match="'released' does not exist for flow models"):
        pair_of(tiny_sdxl(model_type=ModelType.FLOW), empty(), inversion="released")


def test_released_takes_the_third_level_one_step_below_the_second(pack):
    model = tiny_sdxl()
    sampling = model.get_model_object("model_sampling")
    sigmas = sampling.sigmas[[900, 800, 700]]
    levels = pack.nodes.redenoising.noise_levels(sampling, sigmas[:2], "released", 1)
    assert [level.sigma for level in levels] == pytest.approx(sigmas.tolist(), rel=1e-6)


def test_a_graph_without_depth_goes_one_step_down(call, pair_of):
    model = tiny_sdxl()
    (sigmas,) = call("BasicScheduler", model=model, scheduler="normal", steps=10, denoise=1.0)
    (noise,) = call("RandomNoise", noise_seed=7)
    inputs = {"model": model, "positive": conditioning("sdxl", 1), "negative": conditioning("sdxl", 2), "noise": noise}
    options = {name: value for name, value in OPTIONS.items() if name != "depth"}
    pair = call("NPNetRedenoisePair", **inputs, sigmas=sigmas, latent_image=empty(), **options)[2]
    assert torch.equal(pair.target, pair_of(model, empty(), depth=1)[2].target)


def test_a_depth_of_three_is_three_steps_of_the_schedule(pair_of):
    model = tiny_sdxl()
    one, three = (pair_of(model, empty(), depth=depth, inversion="fixed-point")[2] for depth in (1, 3))
    assert (len(one.sigmas), len(three.sigmas)) == (2, 4)
    assert three.sigmas[:2] == one.sigmas
    assert not torch.allclose(one.target, three.target)
    with pytest.raises(ValueError, match="depth 10 needs falling sigmas, the first 11 above 0"):
        pair_of(model, empty(), depth=10)


def test_the_pair_is_of_unit_variance_and_says_how_it_was_made(pair_of):
    _, target, pair = pair_of(tiny_sdxl(), {**empty(2), "batch_index": [3, 5]}, seed=11)
    assert (pair.seed, pair.items, pair.base_family, pair.kept) == (11, (3, 5), "sdxl", (True, True))
    assert (pair.cfg, pair.inversion_cfg, pair.rounds, pair.inversion) == (5.5, 1.0, 1, "exact")
    assert torch.equal(target.generate_noise(empty(2)), pair.target)
    assert pair.source.std().item() == pytest.approx(1, abs=0.05)
    assert target.seed == 11


def test_an_item_of_a_batch_is_that_item_alone(pair_of):
    model = tiny_sdxl()
    both = pair_of(model, {**empty(2), "batch_index": [0, 1]})[2]
    alone = pair_of(model, {**empty(1), "batch_index": [1]})[2]
    assert torch.equal(both.source[1], alone.source[0])
    assert torch.allclose(both.target[1], alone.target[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 3),
        ({"rounds": 3}, 9),
        ({"inversion_cfg": 2.0}, 4),
        ({"depth": 3}, 9),
        ({"depth": 3, "inversion": "fixed-point"}, 12),
    ],
)
def test_rows_evaluated_per_image(pair_of, monkeypatch, changes, rows):
    model, count = tiny_sdxl(), []
    forward = model.model.diffusion_model.forward
    monkeypatch.setattr(
        model.model.diffusion_model, "forward", lambda x, *a, **k: (count.append(len(x)), forward(x, *a, **k))[1]
    )
    pair_of(model, empty(2), **changes)
    assert sum(count) == 2 * rows


def test_only_the_first_two_sigmas_are_read(call, pair_of):
    model = tiny_sdxl()
    (sigmas,) = call("BasicScheduler", model=model, scheduler="normal", steps=10, denoise=1.0)
    (noise,) = call("RandomNoise", noise_seed=7)
    inputs = {"model": model, "positive": conditioning("sdxl", 1), "negative": conditioning("sdxl", 2), "noise": noise}
    short = call("NPNetRedenoisePair", **inputs, sigmas=sigmas[:2], latent_image=empty(), **OPTIONS)[2]
    assert torch.equal(short.target, pair_of(model, empty())[2].target)


def test_our_own_model_patch_does_not_act_on_the_source(call, pack, comfy_base, pair_of):
    model = tiny_sdxl()
    (npnet,) = call("NPNetLoad", npnet_name=save_tiny_npnet(pack, comfy_base))
    (patched,) = call("NPNetModelPatch", model=model, npnet=npnet, strength=1.0, long_prompt="truncate")
    assert torch.equal(pair_of(patched, empty())[2].target, pair_of(model, empty())[2].target)
    key = pack.nodes.start_patch.GOLDEN
    assert len(patched.get_wrappers("outer_sample", key)) == 1  # the user's model keeps its patch


def graph(**changes) -> dict:
    """A graph whose Re-denoise Pair feeds a sampler."""
    inputs = {
        "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "noise": ["5", 0], "sigmas": ["8", 0],
        "latent_image": ["4", 0], **OPTIONS,
    }  # fmt: skip
    nodes = {
        "1": ("TinyTestModel", {"seed": 0}),
        "2": ("CLIPTextEncode", {"text": "a red fox", "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": "", "clip": ["1", 1]}),
        "4": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
        "5": ("RandomNoise", {"noise_seed": 42}),
        "6": ("CFGGuider", {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "cfg": 5.5}),
        "7": ("KSamplerSelect", {"sampler_name": "euler"}),
        "8": ("BasicScheduler", {"model": ["1", 0], "scheduler": "normal", "steps": 3, "denoise": 1.0}),
        "9": ("NPNetRedenoisePair", inputs),
        "10": (
            "SamplerCustomAdvanced",
            {"noise": ["9", 1], "guider": ["6", 0], "sampler": ["7", 0], "sigmas": ["8", 0], "latent_image": ["4", 0]},
        ),
        "11": ("VAEDecode", {"samples": ["10", 0], "vae": ["1", 2]}),
        "12": ("PreviewImage", {"images": ["11", 0]}),
    }
    api = {key: {"class_type": name, "inputs": dict(inputs)} for key, (name, inputs) in nodes.items()}
    for key, values in changes.items():
        api[key.removeprefix("node")]["inputs"].update(values)
    return api


def test_in_a_graph_with_progress_and_interrupt(run_graph, monkeypatch):
    import comfy.utils

    import nodes

    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0, raising=False)  # else steps are left out
    steps = []
    run_graph(graph(node9={"rounds": 2}), on_progress=lambda node, value, total: steps.append((node, value, total)))
    assert [step for step in steps if step[0] == "9"] == [("9", i, 4) for i in (1, 2, 3, 4)]

    def stop(node, value, total):
        if node == "9":
            nodes.interrupt_processing()

    with pytest.raises(InterruptProcessingException):
        run_graph(graph(node9={"rounds": 2}), on_progress=stop)
    run_graph(graph())  # and the next run is well


def test_an_empty_latent_has_the_size_that_the_samplers_give_it(call, pair_of, start_of):
    """Since 2026 EmptyLatentImage says its ratio, and samplers bring it to that of the model, here 16."""
    import comfy.latent_formats

    class Coarse(comfy.latent_formats.SDXL):
        spacial_downscale_ratio = 16

    model = tiny_sdxl()
    model.add_object_patch("latent_format", Coarse())
    (latent,) = call("EmptyLatentImage", width=256, height=128, batch_size=1)
    (noise,) = call("RandomNoise", noise_seed=7)
    start = start_of(model, noise, latent)
    source, target, pair = pair_of(model, latent)
    assert pair.source.shape == start.shape
    assert torch.equal(start_of(model, source, latent), start)
    assert start_of(model, target, latent).shape == start.shape


@pytest.mark.parametrize(
    ("sigmas", "words"),
    [
        (torch.tensor([14.6]), "needs 2 noise levels and got 1"),
        (torch.tensor([]), "needs 2 noise levels and got 0"),
        (torch.tensor([1.0, 2.0]), "falling sigmas"),
        (torch.tensor([14.6, 0.0]), "the first 2 above 0"),
    ],
)
def test_sigmas_that_do_not_fit(call, sigmas, words):
    (noise,) = call("RandomNoise", noise_seed=7)
    with pytest.raises(ValueError, match=words):
        call(
            "NPNetRedenoisePair", model=tiny_sdxl(), positive=conditioning("sdxl"), negative=conditioning("sdxl"),
            noise=noise, sigmas=sigmas, latent_image=empty(), **OPTIONS,
        )  # fmt: skip


def test_noise_that_is_switched_off_makes_no_pair(call):
    (noise,) = call("DisableNoise")
    with pytest.raises(ValueError, match="All-zero noise came"):
        call(
            "NPNetRedenoisePair", model=tiny_sdxl(), positive=conditioning("sdxl"), negative=conditioning("sdxl"),
            noise=noise, sigmas=torch.tensor([14.6, 10.0]), latent_image=empty(), **OPTIONS,
        )  # fmt: skip


def test_a_model_that_ignores_noise_is_refused(pair_of):
    import comfy.model_sampling

    class ImageToImage(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.IMG_TO_IMG):
        def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
            return latent_image.clone()

    model = tiny_sdxl()
    model.add_object_patch("model_sampling", ImageToImage(model.model.model_config))
    with pytest.raises(ValueError, match="does not start from the noise it is given"):
        pair_of(model, {"samples": LATENT})


def test_another_latent_than_the_pair_was_made_with_is_refused(pair_of):
    _, target, _ = pair_of(tiny_sdxl(), empty())
    with pytest.raises(ValueError, match=r"\[1, 4, 8, 8\] came for noise of shape \[1, 4, 16, 16\]"):
        target.generate_noise(empty(1, 8, 8))


def test_equal_guidance_changes_little(pair_of):
    """w_l = w_w leaves only the error of the step, so the change is far smaller than with unequal guidance."""
    model = tiny_sdxl()
    apart = pair_of(model, empty(), steps=100)[2]
    equal = pair_of(model, empty(), steps=100, cfg=1.0)[2]
    assert (equal.target - equal.source).norm() < 0.5 * (apart.target - apart.source).norm()
