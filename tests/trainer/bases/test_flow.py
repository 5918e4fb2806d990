"""Flow models: where the steps lie, how samplers take them, and what tells a distilled model from its base."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from itertools import pairwise

import diffusers
import pytest
import torch

from npnet_core.errors import InputError
from npnet_core.redenoising import redenoise
from tests import tiny_pipelines
from trainer.bases import (
    Schedule,
    default_preset,
    denoiser,
    encode,
    initial_noise,
    latent_shape,
    levels,
    load_base,
    predict,
    sample,
)

PROMPTS = ["a red circle left of a blue square", "one green square"]
SEEDS = [3, 1024]
HEIGHT, WIDTH = 128, 96
SHAPE = (16, HEIGHT // 8, WIDTH // 8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tiny_pipelines.tiny_z_image(tmp_path_factory.mktemp("flow") / "z-image")


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    root = tmp_path_factory.mktemp("others")
    return {
        "sd3": tiny_pipelines.tiny_sd3(root / "sd3"),
        "flux": tiny_pipelines.tiny_flux(root / "flux"),
        "schnell": tiny_pipelines.tiny_flux(root / "schnell", guidance=False),
    }


@pytest.fixture(scope="session")
def base(folder):
    return load_base(folder)


@pytest.fixture(scope="session")
def prompts(base):
    return encode(base, PROMPTS)


@pytest.fixture
def changed(folder, tmp_path):
    """`changed("scheduler/scheduler_config.json", shift=3)`: a copy of the folder with other entries in a JSON file."""

    def copy(file, **entries):
        other = shutil.copytree(folder, tmp_path / "changed", dirs_exist_ok=True)
        path = other / file
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))
        return other

    return copy


def noise_of(base):
    return initial_noise(base, SEEDS, HEIGHT, WIDTH)


def velocity(base, x, sigma, prompts, cfg):
    return predict(base, x, 1000 * sigma, prompts, cfg)


@pytest.mark.parametrize(
    "shift",
    [{"shift": 3.0}, {"use_dynamic_shifting": True}, {"use_dynamic_shifting": True, "time_shift_type": "linear"}],
)
@pytest.mark.parametrize("steps", [1, 8])
def test_sigmas_are_the_pipelines(changed, shift, steps):
    folder = changed("scheduler/scheduler_config.json", **shift)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe(
        list(PROMPTS[1:]), num_inference_steps=steps, guidance_scale=0, height=HEIGHT, width=WIDTH, output_type="latent"
    )
    grid = levels(load_base(folder), Schedule("euler", steps), SHAPE)
    assert [level.sigma for level in grid] == pipe.scheduler.sigmas[:-1].tolist()
    assert [level.t for level in grid] == pipe.scheduler.timesteps.tolist()
    assert [level.alpha for level in grid] == [1 - level.sigma for level in grid]


@pytest.mark.parametrize(
    ("kind", "scheduler", "shape"),
    [
        ("sd3", {}, (4, 3)),
        ("sd3", {"use_dynamic_shifting": True}, (8, 4)),
        ("flux", {}, (8, 4)),  # dev: dynamic
        ("flux", {"use_dynamic_shifting": False, "shift": 1.0}, (8, 4)),  # schnell
    ],
)
def test_sigmas_are_the_pipelines_of_other_families(others, tmp_path, kind, scheduler, shape):
    folder = shutil.copytree(others[kind], tmp_path / "model")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | scheduler))
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    height, width = (16 * side for side in shape)
    pipe(PROMPTS[1:], num_inference_steps=5, height=height, width=width, output_type="latent", max_sequence_length=77)
    grid = levels(load_base(folder), Schedule("euler", 5), (16, height // 8, width // 8))
    assert [level.sigma for level in grid] == pipe.scheduler.sigmas[:-1].tolist()
    assert [level.t for level in grid] == pipe.scheduler.timesteps.tolist()


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_prompts_of_other_lengths_change_no_image(others, kind):
    """T5's padding is read, so a long prompt in a batch must not fill up a short one."""
    base, schedule = load_base(others[kind]), Schedule("euler", 2)
    texts = ["a red circle", "one green square " * 20, "a blue circle"]
    noise, together = initial_noise(base, [1, 2, 3], 64, 64), encode(base, texts)
    ours = sample(base, noise, together, schedule, 3.0)
    for row, text in enumerate(texts):
        alone = encode(base, [text])
        mask = together.prompt_mask[row]
        assert int(mask.sum()) == alone.prompt_embeds.shape[1]
        torch.testing.assert_close(together.prompt_embeds[row, mask], alone.prompt_embeds[0], rtol=1e-4, atol=1e-4)
        expected = sample(base, noise[row : row + 1], alone, schedule, 3.0)
        torch.testing.assert_close(ours[row : row + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", ["heun", "dpm-solver-multistep"])
def test_every_sampler_steps_on_the_same_sigmas(base, sampler):
    assert levels(base, Schedule(sampler, 5), SHAPE) == levels(base, Schedule("euler", 5), SHAPE)


def test_heun_is_its_definition(base, prompts):
    """Euler's step with the mean of the velocities at both of its ends; the last step is Euler's."""
    x = noise_of(base)
    *sigmas, last = [level.sigma for level in levels(base, Schedule("heun", 4), SHAPE)]
    for sigma, lower in pairwise([*sigmas, last]):
        here = velocity(base, x, sigma, prompts, 4.0)
        there = velocity(base, x + (lower - sigma) * here, lower, prompts, 4.0)
        x = x + (lower - sigma) * (here + there) / 2
    x = x - last * velocity(base, x, last, prompts, 4.0)
    ours = sample(base, noise_of(base), prompts, Schedule("heun", 4), 4.0)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_dpm_solver_is_its_definition(base, prompts):
    """DPM-Solver++(2M), eq. 15 of arXiv 2211.01095, with λ = log α - log σ; first order where λ is infinite."""
    x, before, step_before = noise_of(base), None, math.inf
    sigmas = [level.sigma for level in levels(base, Schedule("dpm-solver-multistep", 5), SHAPE)]
    for sigma, lower in pairwise([*sigmas, 0.0]):
        denoised = x - sigma * velocity(base, x, sigma, prompts, 4.0)
        if sigma == 1 or lower == 0:
            step, data = math.inf, denoised
        else:
            step = math.log((1 - lower) / lower * sigma / (1 - sigma))
            data = denoised + step / step_before / 2 * (denoised - before)
        x = lower / sigma * x + (1 - lower) * (1 - math.exp(-step)) * data
        before, step_before = denoised, step
    ours = sample(base, noise_of(base), prompts, Schedule("dpm-solver-multistep", 5), 4.0)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_redenoising_is_two_euler_steps(base, prompts):
    x = noise_of(base)
    first, second = (level.sigma for level in levels(base, Schedule("euler", 10), SHAPE)[:2])
    lower = x + (second - first) * velocity(base, x, first, prompts, 5.0)
    expected = lower + (first - second) * velocity(base, lower, second, prompts, 1.0)
    target, _ = redenoise(denoiser(base, prompts), x, levels(base, Schedule("euler", 10), SHAPE), cfg=5.0)
    torch.testing.assert_close(target, expected, rtol=1e-5, atol=1e-5)
    assert (target - x).std() > 1e-3


# A distilled model and its base


@pytest.mark.parametrize(
    ("file", "entries", "said", "guidance", "preset"),
    [
        ("scheduler/scheduler_config.json", {"shift": 3.0}, None, "cfg", "z-image"),
        ("scheduler/scheduler_config.json", {"shift": 6.0}, True, "none", "z-image-turbo"),
        ("model_index.json", {"is_distilled": True}, None, "none", "z-image-turbo"),
        ("model_index.json", {"_is_distilled": True}, None, "none", "z-image-turbo"),
        ("model_index.json", {"is_distilled": True}, False, "cfg", "z-image"),
    ],
)
def test_what_is_distilled(changed, file, entries, said, guidance, preset):
    base = load_base(changed(file, **entries), distilled=said)
    assert (base.guidance, default_preset(base)) == (guidance, preset)


def test_turbo_is_the_published_network_with_its_shift(changed):
    base = load_base(changed("scheduler/scheduler_config.json", shift=3.0))
    base.network.register_to_config(dim=3840)
    assert (base.guidance, default_preset(base)) == ("none", "z-image-turbo")
    assert dataclasses.replace(base, distilled=False).guidance == "cfg"
    base.pipe.scheduler.register_to_config(shift=6.0)
    assert base.guidance == "cfg"


@pytest.mark.parametrize(
    ("kind", "said", "guidance", "preset"),
    [
        ("sd3", None, "cfg", "sd3.5"),
        ("sd3", True, "none", "sd3.5-large-turbo"),
        ("flux", None, "embedding", "flux1-dev"),
        ("schnell", None, "none", "flux1-schnell"),
    ],
)
def test_guidance_of_other_families(others, kind, said, guidance, preset):
    base = load_base(others[kind], distilled=said)
    assert (base.guidance, default_preset(base)) == (guidance, preset)
    noise, told = initial_noise(base, [1], 64, 64), encode(base, PROMPTS[:1])
    outputs = [predict(base, noise, 500.0, told, cfg) for cfg in (1, 4.5)]
    assert ((outputs[1] - outputs[0]).abs().max() > 1e-3) == (guidance != "none")


# Wrong input


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            Schedule("ddim", 4),
            "Sampler ddim does not exist for flow models .*: use one of euler, heun, dpm-solver-multis",
        ),
        (Schedule("euler", 4, "trailing"), "Spacing trailing does not exist for flow models .*: leave it out"),
    ],
)
def test_samplers_of_other_models(base, schedule, message):
    with pytest.raises(InputError, match=message):
        levels(base, schedule)


def test_images_larger_than_the_network_knows_places_for(base, others):
    for model, longest in ((base, 64 * 16), (load_base(others["sd3"]), 24 * 16)):
        assert latent_shape(model, 64, longest) == (16, 8, longest // 8)
        with pytest.raises(
            InputError, match=f"1040x64 pixels is larger than .*: use sides of at most {longest} pixels"
        ):
            latent_shape(model, 64, 1040)
        prompts = encode(model, PROMPTS[:1])
        predict(model, initial_noise(model, [1], 64, longest), 500.0, prompts, 1.0)
        with pytest.raises((ValueError, IndexError)):  # diffusers'
            predict(model, torch.zeros(1, 16, 8, longest // 8 + 2), 500.0, prompts, 1.0)


@pytest.mark.parametrize("entries", [{"shift": -0.5}, {"invert_sigmas": True}])
def test_sigmas_that_do_not_fall(changed, entries):
    base = load_base(changed("scheduler/scheduler_config.json", **entries))
    with pytest.raises(InputError, match=r"sigmas of .* at 4 steps do not fall .*: mend its"):
        levels(base, Schedule("euler", 4))


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("model_index.json", {"_class_name": "ZImageInpaintPipeline"}, "of the class ZImageInpaintPipeline, with "),
        ("model_index.json", {"text_encoder": [None, None]}, r"lacks a part .* text_encoder \(Qwen3Model\): get the"),
        ("model_index.json", {"_class_name": "FluxKontextPipeline"}, "of the class FluxKontextPipeline, with "),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "uses DDIMScheduler, but only FlowMatch"),
        ("scheduler/scheduler_config.json", {"stochastic_sampling": True}, "without stochastic_sampling"),
    ],
)
def test_models_that_cannot_be_used(changed, file, entries, message):
    with pytest.raises(InputError, match=message) as caught:
        load_base(changed(file, **entries))
    assert "\n" not in str(caught.value)
