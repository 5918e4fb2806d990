"""Base models against diffusers' own pipelines and schedulers: real classes at tiny size, saved and loaded again."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

from npnet_core.errors import InputError
from npnet_core.redenoising import Level, ddim, redenoise
from tests import tiny_pipelines
from trainer.bases import (
    PRESETS,
    SAMPLERS,
    STOCHASTIC,
    Schedule,
    branches,
    decode,
    denoiser,
    encode,
    encode_images,
    evaluations,
    fingerprint,
    initial_noise,
    join,
    latent_shape,
    levels,
    load_base,
    move,
    predict,
    sample,
    shares_first,
)
from trainer.bases.load import check_tokenizers
from trainer.bases.load_errors import loading


class Kind(NamedTuple):
    """A tiny base model, and what is true of it. A flow model is sampled on the scheduler that its folder has."""

    build: Callable[[Path], Path]
    prompt_dim: int
    prediction: str
    channels: int = 4
    tokens: int = 77
    sampler: str = "ddim"

    def schedule(self, steps: int) -> Schedule:
        return Schedule(self.sampler, steps)


def tiny_sd2(folder: Path) -> Path:
    return tiny_pipelines.tiny_sd(folder, 1024, prediction="v_prediction", use_linear_projection=True)


KINDS = {  # by their family
    "sdxl": Kind(tiny_pipelines.tiny_sdxl, 24 + 40, "epsilon"),
    "hunyuan-dit": Kind(tiny_pipelines.tiny_hunyuan_dit, 32, "v_prediction"),
    "sd1": Kind(lambda folder: tiny_pipelines.tiny_sd(folder, 768), 768, "epsilon"),
    "sd2": Kind(tiny_sd2, 1024, "v_prediction"),
    "sd": Kind(tiny_pipelines.tiny_sd, 32, "epsilon"),
    "z-image": Kind(tiny_pipelines.tiny_z_image, 32, "flow_prediction", 16, 512, "euler"),
    "sd3": Kind(tiny_pipelines.tiny_sd3, 64, "flow_prediction", 16, 77 + 77, "euler"),
    "flux": Kind(tiny_pipelines.tiny_flux, 40, "flow_prediction", 16, 256, "euler"),
}
FLOW = [kind for kind, facts in KINDS.items() if facts.prediction == "flow_prediction"]
DIFFUSION = [kind for kind, facts in KINDS.items() if facts.prediction in ("epsilon", "v_prediction")]
PROMPTS = ["a red circle left of a blue square", "one green square"]
SEEDS = [3, 1024]
HEIGHT, WIDTH = 128, 96


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {kind: facts.build(root / kind) for kind, facts in KINDS.items()}


@pytest.fixture(scope="session")
def bases(folders):
    return {kind: load_base(folder) for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def base(bases, kind):
    return bases[kind]


@pytest.fixture
def sdxl(bases):
    return bases["sdxl"]


def noise_of(base, seeds=SEEDS):
    return initial_noise(base, seeds, HEIGHT, WIDTH)


@cache
def loaded(folder):
    return diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)


def pipeline(folder, sampler="ddim", **settings):
    """The pipeline as diffusers loads it, with a scheduler from the folder's settings."""
    name, ours = SAMPLERS[sampler]
    settings = {"set_alpha_to_one": False, **ours, **settings}
    pipe = loaded(folder)
    pipe.scheduler = getattr(diffusers, name).from_pretrained(folder, subfolder="scheduler", **settings)
    return pipe


def pipeline_of(folders, kind):
    """The pipeline that a kind is held against."""
    return pipeline(folders[kind], KINDS[kind].sampler) if kind in DIFFUSION else loaded(folders[kind])


def run(pipe, cfg=5.5, steps=4, output="latent", **inputs):
    if isinstance(pipe, diffusers.HunyuanDiTPipeline):
        inputs["use_resolution_binning"] = False
    if isinstance(pipe, diffusers.ZImagePipeline):
        cfg -= 1  # as it counts
    elif isinstance(pipe, diffusers.StableDiffusion3Pipeline):
        inputs["max_sequence_length"] = 77  # ComfyUI's T5
    elif isinstance(pipe, diffusers.FluxPipeline):
        inputs["max_sequence_length"] = 256
        inputs["latents"] = pipe._pack_latents(inputs["latents"], *inputs["latents"].shape)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        list(PROMPTS),  # which Z-Image's changes
        num_inference_steps=steps,
        guidance_scale=cfg,
        height=HEIGHT,
        width=WIDTH,
        output_type=output,
        **inputs,
    ).images
    if isinstance(pipe, diffusers.FluxPipeline) and output == "latent":
        return pipe._unpack_latents(images, HEIGHT, WIDTH, pipe.vae_scale_factor)
    return images


def assert_equal(ours, expected, tolerance=1e-5):
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


@contextmanager
def counted_rows(base):
    """The number of rows of each call of the network."""
    rows = []
    hook = base.network.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    yield rows
    hook.remove()


# What a base model is


def test_what_a_net_needs_to_know(base, kind):
    _, prompt_dim, prediction, channels, tokens, _ = KINDS[kind]
    assert (base.family, base.prompt_dim, base.prompt_tokens) == (kind, prompt_dim, tokens)
    assert (base.channels, base.pixels, base.size, base.prediction) == (channels, 8, 128, prediction)
    prompts = encode(base, PROMPTS)
    tokens = tokens if prompts.prompt_mask is None else prompts.prompt_mask.sum(1).max()
    assert prompts.prompt_embeds.shape == (2, tokens, prompt_dim)


def test_presets():
    """Table of collection settings in the paper: w_l, w_w, steps, inverse scheduler; and ours for flow models."""
    settings = {
        name: (preset.cfg, preset.inversion_cfg, preset.schedule.steps, preset.schedule.sampler)
        for name, preset in PRESETS.items()
    }
    assert settings == {
        "sdxl": (5.5, 1.0, 10, "ddim"),
        "dreamshaper-xl-turbo": (3.5, 1.0, 4, "dpm-solver-multistep"),
        "sdxl-turbo": (1.0, 1.0, 4, "euler-ancestral"),
        "hunyuan-dit": (5.0, 1.0, 10, "ddim"),
        "z-image": (4.0, 1.0, 10, "euler"),
        "z-image-turbo": (1.0, 1.0, 8, "euler"),
        "sd3.5": (4.0, 1.0, 10, "euler"),
        "sd3.5-large-turbo": (1.0, 1.0, 4, "euler"),
        "flux1-dev": (3.5, 1.0, 8, "euler"),
        "flux1-krea-dev": (4.5, 1.0, 8, "euler"),
        "flux1-schnell": (1.0, 1.0, 8, "euler"),
    }


# Prompts


@torch.no_grad()
def test_prompt_embeds_are_the_encoders_states(base, kind):
    """SDXL: the penultimate states side by side; SD: the last; Hunyuan-DiT: BERT's last, masked; Z-Image: the last
    but one of its turns, each prompt alone; SD3: both CLIPs' penultimate, then T5's last; FLUX.1: T5's.
    """
    pipe, ours = base.pipe, encode(base, PROMPTS)

    def tokens(tokenizer, length=KINDS[kind].tokens):
        return tokenizer(PROMPTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt")

    if base.family == "sdxl":
        outputs = [
            pipe.text_encoder(tokens(pipe.tokenizer).input_ids, output_hidden_states=True),
            pipe.text_encoder_2(tokens(pipe.tokenizer_2).input_ids, output_hidden_states=True),
        ]
        expected = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        assert_equal(ours.cond["pooled"], outputs[1].text_embeds)
    elif base.family == "hunyuan-dit":
        expected = pipe.text_encoder(**tokens(pipe.tokenizer)).last_hidden_state
    elif base.family == "z-image":
        for prompt, row, mask in zip(PROMPTS, ours.prompt_embeds, ours.prompt_mask, strict=True):
            turns = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
            inputs = pipe.tokenizer(turns, return_tensors="pt")
            assert_equal(row[mask], pipe.text_encoder(**inputs, output_hidden_states=True).hidden_states[-2][0])
        return
    elif base.family == "sd3":
        clips = [
            encoder(tokens(tokenizer, 77).input_ids, output_hidden_states=True)
            for encoder, tokenizer in ((pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2))
        ]
        clip = torch.cat([each.hidden_states[-2] for each in clips], dim=-1)
        t5 = pipe.text_encoder_3(tokens(pipe.tokenizer_3, 77).input_ids).last_hidden_state
        expected = torch.cat([F.pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], dim=1)
        assert_equal(ours.cond["pooled"], torch.cat([each.text_embeds for each in clips], dim=-1))
    elif base.family == "flux":
        expected = pipe.text_encoder_2(tokens(pipe.tokenizer_2).input_ids).last_hidden_state
        assert_equal(ours.cond["pooled"], pipe.text_encoder(tokens(pipe.tokenizer, 77).input_ids).pooler_output)
    else:
        expected = pipe.text_encoder(tokens(pipe.tokenizer).input_ids).last_hidden_state
    assert_equal(ours.prompt_embeds, expected)


def test_unconditional_branch(base):
    """Zeros for SDXL, whatever its folder says, the empty prompt for the others."""
    uncond, empty = encode(base, PROMPTS).uncond, encode(base, [""]).cond
    for name, value in uncond.items():
        assert_equal(value, torch.zeros_like(value) if base.family == "sdxl" else empty[name])


def test_prompts_can_be_picked_and_joined(sdxl):
    prompts = encode(sdxl, PROMPTS, batch=1)
    for ours, expected in [
        (prompts, encode(sdxl, PROMPTS)),
        (prompts[[1, 1, 0]], encode(sdxl, [PROMPTS[1], PROMPTS[1], PROMPTS[0]])),
        (join([prompts[1:], prompts[:1]]), encode(sdxl, PROMPTS[::-1])),
    ]:
        assert len(ours) == len(expected.prompt_embeds)
        for name, value in expected.cond.items():
            assert_equal(ours.cond[name], value)


# Noise and sizes


def test_noise_is_one_seeds_own_draw(base, kind):
    noise, channels = noise_of(base), KINDS[kind].channels
    assert noise.shape == (2, *latent_shape(base, HEIGHT, WIDTH)) == (2, channels, 16, 12)
    for row, seed in zip(noise, SEEDS, strict=True):
        assert_equal(row[None], torch.randn(1, channels, 16, 12, generator=torch.manual_seed(seed)), 0)


def test_sizes_that_do_not_fit(bases):
    assert latent_shape(bases["sdxl"]) == (4, 16, 16)
    with pytest.raises(InputError, match=r"100x128 .* multiples of 8"):
        latent_shape(bases["sdxl"], 128, 100)
    with pytest.raises(InputError, match="multiples of 16"):
        latent_shape(bases["hunyuan-dit"], 128, 136)


# Sampling like the pipelines


@pytest.mark.parametrize("cfg", [1.0, 5.5])
def test_samples_like_the_pipeline(folders, kind, base, cfg):
    noise = noise_of(base)
    expected = run(pipeline_of(folders, kind), cfg, latents=noise.clone())
    assert_equal(sample(base, noise, encode(base, PROMPTS), KINDS[kind].schedule(4), cfg), expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_like_the_pipeline(folders, sdxl, sampler):
    """Its own initial noise and its own stream of noise, one generator per image."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    expected = run(pipeline(folders["sdxl"], sampler), steps=5, generator=generators)
    seeds = SEEDS if sampler in STOCHASTIC else None
    ours = sample(sdxl, noise_of(sdxl), encode(sdxl, PROMPTS), Schedule(sampler, 5), 5.5, seeds=seeds)
    assert_equal(ours, expected)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm-solver-multistep"])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_spacings_like_the_pipeline(folders, sdxl, sampler, spacing):
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    expected = run(pipeline(folders["sdxl"], sampler, timestep_spacing=spacing), generator=generators)
    assert_equal(sample(sdxl, noise_of(sdxl), encode(sdxl, PROMPTS), Schedule(sampler, 4, spacing), 5.5), expected)


def test_align_your_steps_like_the_pipeline(folders, sdxl):
    published = [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]
    schedule = Schedule("dpm-solver-multistep", 10, "ays")
    assert [level.t for level in levels(sdxl, schedule)] == published
    noise = noise_of(sdxl)
    pipe = pipeline(folders["sdxl"], "dpm-solver-multistep")
    expected = run(pipe, steps=None, timesteps=published, latents=noise.clone())
    assert_equal(sample(sdxl, noise, encode(sdxl, PROMPTS), schedule, 5.5), expected)
    with pytest.raises(InputError, match="no ays spacing for a sdxl model with sampler ddim"):
        levels(sdxl, Schedule("ddim", 10, "ays"))


@torch.no_grad()
def test_pictures_are_encoded_and_decoded_as_the_autoencoder_does_it(base):
    images = torch.rand(2, HEIGHT, WIDTH, 3)
    latents = encode_images(base, images, batch=1)
    assert tuple(latents.shape) == (2, *latent_shape(base, HEIGHT, WIDTH))
    expected = base.pipe.vae(2 * images.movedim(-1, 1) - 1, sample_posterior=False).sample
    assert_equal(decode(base, latents), (expected / 2 + 0.5).clamp(0, 1).movedim(1, -1))


def test_decodes_like_the_pipeline(folders, kind, base):
    noise = noise_of(base)
    expected = torch.as_tensor(run(pipeline_of(folders, kind), output="pt", latents=noise)).permute(0, 2, 3, 1)
    images = decode(base, sample(base, noise, encode(base, PROMPTS), KINDS[kind].schedule(4), 5.5), batch=1)
    assert images.shape == (2, HEIGHT, WIDTH, 3)
    assert_equal(images, expected)


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver-multistep", "ddpm", "euler-ancestral", "lcm"])
def test_an_image_does_not_depend_on_its_batch(sdxl, sampler):
    prompts, noise, schedule = encode(sdxl, PROMPTS), noise_of(sdxl), Schedule(sampler, 3)
    both = sample(sdxl, noise, prompts, schedule, 5.5, seeds=SEEDS)
    second = sample(sdxl, noise[1:], prompts[1:], schedule, 5.5, seeds=SEEDS[1:])
    assert_equal(second, both[1:], 1e-3)


def test_stochastic_samplers_need_seeds(sdxl):
    with pytest.raises(InputError, match="give one seed per image"):
        sample(sdxl, noise_of(sdxl), encode(sdxl, PROMPTS), Schedule("euler-ancestral", 2), 5.5)


def test_one_prompt_per_latent(sdxl):
    with pytest.raises(ValueError, match="2 latents and 1 prompts"):
        predict(sdxl, noise_of(sdxl), 500, encode(sdxl, PROMPTS[:1]), 1.0)


# Levels, and re-denoising on them


def test_levels_are_the_definition_of_sdxls_schedule(sdxl):
    """Ten leading steps with offset 1: 901, 801, …, 1; alpha² is the product of 1 - beta."""
    alphas_cumprod = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    grid = levels(sdxl, Schedule("ddim", 10))
    assert [level.t for level in grid] == list(range(901, 0, -100))
    for level in grid:
        assert level.alpha**2 == pytest.approx(alphas_cumprod[level.t], rel=1e-5)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)


def test_dreamshapers_four_steps(sdxl):
    assert [level.t for level in levels(sdxl, PRESETS["dreamshaper-xl-turbo"].schedule)] == [801, 601, 401, 201]


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_levels_are_the_samplers_sigmas(sdxl, sampler, spacing):
    """One level per step, where the sampler's own sigmas are; LCM skips among fifty steps whatever the spacing."""
    name, settings = SAMPLERS[sampler]
    scheduler = getattr(diffusers, name)(**tiny_pipelines.BETAS, **settings, steps_offset=1, timestep_spacing=spacing)
    scheduler.set_timesteps(5)
    grid = levels(sdxl, Schedule(sampler, 5, spacing))
    ratios = [level.sigma / level.alpha for level in grid]
    assert len(grid) == 5
    assert ratios == sorted(ratios, reverse=True)
    if hasattr(scheduler, "sigmas"):
        expected = scheduler.sigmas[:: scheduler.order][:5]
        torch.testing.assert_close(torch.tensor(ratios), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", DIFFUSION)
@torch.no_grad()
def test_one_step_is_diffusers_ddim_step(folders, base, kind):
    x, prompts = noise_of(base), encode(base, PROMPTS)
    scheduler = pipeline(folders[kind]).scheduler
    scheduler.set_timesteps(10)
    start, end = levels(base, Schedule("ddim", 10))[:2]
    expected = scheduler.step(predict(base, x, start.t, prompts, 5.5), start.t, x).prev_sample
    assert_equal(ddim(x, denoiser(base, prompts)(x, start, 5.5), start, end), expected)


@pytest.mark.parametrize("kind", DIFFUSION)
@torch.no_grad()
def test_redenoising_is_the_papers_formula(base):
    """Eq. 12 with the noise that the network predicts, for networks that predict epsilon and v alike."""
    x, prompts = noise_of(base), encode(base, PROMPTS)
    first, second = levels(base, Schedule("ddim", 10))[:2]

    def eps(x, level, cfg):
        output = predict(base, x, level.t, prompts, cfg)
        return output if base.prediction == "epsilon" else level.alpha * output + level.sigma * x

    eps_l = eps(x, first, 5.5)
    lower = second.alpha / first.alpha * (x - first.sigma * eps_l) + second.sigma * eps_l
    change = (
        (first.alpha * second.sigma - second.alpha * first.sigma) / second.alpha * (eps_l - eps(lower, second, 1.0))
    )
    with counted_rows(base) as rows:
        target, _ = redenoise(denoiser(base, prompts), x, [first, second], cfg=5.5, inversion_cfg=1.0)
    assert rows == [4, 2]
    assert change.std() > 1e-3
    assert (target - x - change).std() < 1e-3 * change.std()


# Doing nothing twice


@pytest.mark.parametrize(("sampler", "known"), [*((sampler, 1) for sampler in SAMPLERS), ("ddim", 2)])
def test_the_first_prediction_can_be_shared(sdxl, sampler, known):
    prompts, noise, schedule = encode(sdxl, PROMPTS), noise_of(sdxl), Schedule(sampler, 3)
    assert shares_first(sdxl, schedule)
    expected = sample(sdxl, noise, prompts, schedule, 5.5, seeds=SEEDS)
    first = denoiser(sdxl, prompts)(noise, levels(sdxl, schedule)[0], 5.5)
    with counted_rows(sdxl) as rows:
        ours = sample(sdxl, noise, prompts, schedule, 5.5, seeds=SEEDS, first_denoised=first[:known])
    assert sum(rows) == 2 * (2 * evaluations(sdxl, schedule) - known)
    assert_equal(ours, expected, 1e-4)


@pytest.mark.parametrize("kind", ["sd2", *FLOW])
def test_sharing_works_for_other_predictions(bases, kind):
    base, schedule = bases[kind], KINDS[kind].schedule(3)
    assert shares_first(base, schedule)
    prompts, noise = encode(base, PROMPTS), noise_of(base)
    first = denoiser(base, prompts)(noise, levels(base, schedule)[0], 5.5)
    expected = sample(base, noise, prompts, schedule, 5.5)
    assert_equal(sample(base, noise, prompts, schedule, 5.5, first_denoised=first), expected)


def test_a_schedule_that_starts_elsewhere_shares_nothing(sdxl):
    schedule, prompts, noise = Schedule("euler", 3, "trailing"), encode(sdxl, PROMPTS), noise_of(sdxl)
    assert not shares_first(sdxl, schedule)
    with pytest.raises(ValueError, match="does not start with a prediction at the noise"):
        sample(sdxl, noise, prompts, schedule, 5.5, first_denoised=noise)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_what_sampling_costs(sdxl, sampler):
    """Second-order samplers evaluate twice but at the last step, PNDM once more, all others once a step."""
    schedule = Schedule(sampler, 4)
    with counted_rows(sdxl) as rows:
        sample(sdxl, noise_of(sdxl), encode(sdxl, PROMPTS), schedule, 5.5, seeds=SEEDS)
    assert evaluations(sdxl, schedule) == {"heun": 7, "kdpm2-ancestral": 7, "pndm": 5}.get(sampler, 4) == len(rows)


@pytest.mark.parametrize(("cfg", "cost"), [(1.0, 1), (5.5, 2), (0.0, 2)])
def test_guidance_one_costs_one_branch(base, cfg, cost):
    if base.guidance == "embedding":
        cost = 1
    with counted_rows(base) as rows:
        predict(base, noise_of(base), 500, encode(base, PROMPTS), cfg)
    assert sum(rows) == 2 * cost == 2 * branches(base, cfg)


# Variants


def test_unets_that_are_told_the_guidance(tmp_path):
    """LCM's: one branch, the scale as an input."""
    folder = tiny_pipelines.tiny_sd(tmp_path / "lcm", time_cond_proj_dim=16)
    base = load_base(folder)
    noise, prompts = noise_of(base), encode(base, PROMPTS)
    assert branches(base, 8.0) == 1
    outputs = {}
    for cfg in (2.0, 8.0):
        expected = run(pipeline(folder), cfg, latents=noise.clone())
        outputs[cfg] = sample(base, noise, prompts, Schedule("ddim", 4), cfg)
        assert_equal(outputs[cfg], expected)
    assert (outputs[8.0] - outputs[2.0]).abs().max() > 1e-3


def test_other_autoencoders_and_channels(tmp_path):
    """A folder of another shape: half-size latents of eight channels from an AutoencoderTiny."""
    folder = tiny_pipelines.tiny_sd(
        tmp_path / "small",
        channels=8,
        autoencoder=diffusers.AutoencoderTiny(
            latent_channels=8,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ),
    )
    base = load_base(folder)
    noise = initial_noise(base, SEEDS, 32, 24)
    assert (base.family, base.channels, base.pixels, base.size) == ("sd", 8, 2, 32)
    assert noise.shape == (2, 8, 16, 12)
    pipe = pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    settings = dict(num_inference_steps=2, guidance_scale=3.0, height=32, width=24, output_type="pt")
    expected = torch.as_tensor(pipe(PROMPTS, latents=noise.clone(), **settings).images).permute(0, 2, 3, 1)
    assert_equal(decode(base, sample(base, noise, encode(base, PROMPTS), Schedule("ddim", 2), 3.0)), expected)


@pytest.mark.parametrize("kind", ["sdxl", "sd"])
def test_controlnet_like_the_pipeline(folders, tmp_path, kind):
    pipe = pipeline(folders[kind])
    torch.manual_seed(0)
    controlnet = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    for parameter in controlnet.parameters():  # made with zeroed last layers
        parameter.data += 0.05 * torch.randn_like(parameter)
    controlnet.save_pretrained(tmp_path)
    base = load_base(folders[kind], controlnet=tmp_path)
    noise, prompts = noise_of(base), encode(base, PROMPTS)
    picture = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.manual_seed(1))
    name = {"sdxl": "StableDiffusionXLControlNetPipeline", "sd": "StableDiffusionControlNetPipeline"}[kind]
    guided = getattr(diffusers, name)(**pipe.components, controlnet=controlnet)
    expected = run(guided, image=[picture[0]] * 2, latents=noise.clone())
    schedule = Schedule("ddim", 4)
    for control in (picture, picture.repeat(2, 1, 1, 1)):
        ours = sample(base, noise, prompts, schedule, 5.5, control=control)
        assert_equal(ours, expected)
    assert (ours - sample(base, noise, prompts, schedule, 5.5)).abs().max() > 1e-2
    first = denoiser(base, prompts, picture)(noise, levels(base, schedule)[0], 5.5)
    shared = sample(base, noise, prompts, schedule, 5.5, first_denoised=first[:1], control=control)
    assert_equal(shared, expected, 1e-4)


def test_a_control_picture_needs_a_controlnet(sdxl):
    with pytest.raises(InputError, match="without a ControlNet"):
        predict(sdxl, noise_of(sdxl), 500, encode(sdxl, PROMPTS), 1.0, torch.zeros(1, 3, HEIGHT, WIDTH))


def test_lora_is_added_to_the_weights(folders, tmp_path):
    before = load_base(folders["sd"])
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
    weight = before.network.get_submodule(layer).weight
    up, down = torch.randn(weight.shape[0], 2), torch.randn(2, weight.shape[1])
    save_file({f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    after = load_base(folders["sd"], lora=tmp_path / "lora.safetensors")
    assert list(after.network.state_dict()) == list(before.network.state_dict())
    assert_equal(after.network.get_submodule(layer).weight, weight + up @ down)
    assert fingerprint(after) != fingerprint(before)
    names = {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up}
    save_file(names, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors has no weights for"):
        load_base(folders["sd"], lora=tmp_path / "other.safetensors")


def test_folders_of_the_fp16_variant(folders, tmp_path):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "fp16")
    for weights in folder.glob("*/*.safetensors"):
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert fingerprint(load_base(folder)) == fingerprint(load_base(folders["sdxl"]))


# Devices and memory


@pytest.mark.parametrize("kind", ["sdxl", "hunyuan-dit", "sd", *FLOW])
def test_half_precision(folders, bases, kind):
    """Latents stay in fp32; an autoencoder that overflows does too."""
    base = load_base(folders[kind], precision="bf16")
    assert base.dtype == base.pipe.text_encoder.dtype == torch.bfloat16
    assert base.pipe.vae.dtype == (torch.bfloat16 if kind == "sd" else torch.float32)
    noise = noise_of(base)
    latents, expected = (
        sample(model, noise, encode(model, PROMPTS), KINDS[kind].schedule(2), 3.0) for model in (base, bases[kind])
    )
    assert latents.dtype == torch.float32
    assert (latents - expected).std() < 0.1 * expected.std()
    assert decode(base, latents).dtype == torch.float32


def test_parts_can_leave(folders):
    """A part on the meta device has no memory: what still works does not use it."""
    base = load_base(folders["sdxl"])
    prompts = encode(base, PROMPTS)
    move(base, "text", "meta")
    latents = sample(base, noise_of(base), prompts, Schedule("ddim", 2), 5.5)
    move(base, "network", "meta")
    assert decode(base, latents).isfinite().all()


def test_fingerprint_tells_models_apart(folders, bases, tmp_path):
    same = load_base(folders["sd"])
    other = load_base(tiny_pipelines.tiny_sd(tmp_path / "seed", seed=1))
    v = load_base(tiny_pipelines.tiny_sd(tmp_path / "v", prediction="v_prediction"))
    assert fingerprint(same) == fingerprint(bases["sd"])
    assert len({fingerprint(model) for model in (same, other, v)}) == 3


def test_folders_need_no_network(folders, monkeypatch):
    def refuse(*_):
        raise AssertionError("something went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for folder in folders.values():
        load_base(folder)


# Wrong input


@pytest.fixture
def broken(folders, tmp_path):
    """`broken("unet")`: a copy of the tiny SD's folder, to be damaged."""
    return shutil.copytree(folders["sd"], tmp_path / "broken")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "unet"), "no file named"),
        (
            lambda folder: cut(folder / "unet/diffusion_pytorch_model.safetensors"),
            r"unet/diffusion_pytorch_model\.safetensors cannot be read \(.*incomplete metadata",
        ),
        (
            lambda folder: cut(folder / "text_encoder/model.safetensors"),
            r"text_encoder/model\.safetensors cannot be read",
        ),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer of 2 words for a text encoder of 547"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "not a valid JSON"),
        (lambda folder: edit(folder / "unet/config.json", block_out_channels=[16, 64]), "expected shape|size mismatch"),
        (lambda folder: edit(folder / "model_index.json", unet=["diffusers", "UNet1DModel"]), "cannot be used"),
        (lambda folder: edit(folder / "scheduler/scheduler_config.json", prediction_type="sample"), "type sample"),
    ],
)
def test_broken_folders(broken, damage, message):
    damage(broken)
    with pytest.raises(InputError, match=message) as caught:
        load_base(broken)
    assert "\n" not in str(caught.value)


def test_each_encoder_is_held_to_its_own_tokenizer(folders):
    """Also where the first is absent, and where an encoder of texts and pictures keeps its vocabulary's size within."""
    base = load_base(folders["hunyuan-dit"])
    base.pipe.text_encoder, bert = None, base.pipe.tokenizer
    base.pipe.tokenizer = transformers.BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1})
    check_tokenizers(base)  # T5's is whole
    base.pipe.text_encoder = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={"vocab_size": len(bert), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
            vision_config={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32},
        )
    )
    with pytest.raises(InputError, match=f"words for a text encoder of {len(bert)}"):
        check_tokenizers(base)
    base.pipe.tokenizer = bert
    check_tokenizers(base)


def test_inpainting_models_are_refused(tmp_path):
    with pytest.raises(InputError, match="takes 9 channels where its autoencoder makes 4"):
        load_base(tiny_pipelines.tiny_sd(tmp_path / "inpaint", channels=9))


def test_flow_models_are_refused(broken):
    edit(broken / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    with pytest.raises(InputError, match="uses FlowMatchEulerDiscreteScheduler"):
        load_base(broken)


def test_single_files_need_a_config(folders, tmp_path, monkeypatch):
    """diffusers would fetch one."""
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="is a single file"):
        load_base(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds no UNet and no autoencoder"):
        load_base(tmp_path / "model.safetensors", config=folders["sdxl"])
    with pytest.raises(InputError, match="read from diffusers folders"):
        load_base(tmp_path / "model.safetensors", config=folders["hunyuan-dit"])
    # diffusers may come to read them: what it leaves over in a file is only known of UNets
    monkeypatch.setattr(diffusers.HunyuanDiTPipeline, "from_single_file", None, raising=False)
    with pytest.raises(InputError, match="read from diffusers folders"):
        load_base(tmp_path / "model.safetensors", config=folders["hunyuan-dit"])
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.ckpt cannot be loaded"):
        load_base(tmp_path / "junk.ckpt", config=folders["sdxl"])


def test_a_name_is_a_hub_id_or_nothing(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="download it first if this machine is offline"):
        load_base("nobody/nothing")
    for name in ("nothing", "no/such/folder", "./nothing"):
        with pytest.raises(InputError, match="There is no base model"):
            load_base(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "fp32, fp16, bf16"),
        ({"device": "gpu"}, "There is no device"),
        ({"lora": "absent.safetensors"}, "There is no LoRA file"),
        ({"controlnet": "./absent"}, r"There is no ControlNet folder \./absent: name a diffusers folder"),
    ],
)
def test_options_that_do_not_exist(folders, options, message):
    with pytest.raises(InputError, match=message):
        load_base(folders["sd"], **options)


def test_advice_to_programmers_is_left_out():
    said = (
        "Cannot load because conv_in.weight expected shape [32, 4], but got [32, 9]. If you want to instead overwrite "
        "randomly initialized weights, please make sure to pass both `low_cpu_mem_usage=False` and so on. See there."
    )
    kept = r"cannot be loaded \(Cannot load because .* expected shape \[32, 4\], but got \[32, 9\]\. See there\)"
    with pytest.raises(InputError, match=kept), loading("model.safetensors"):
        raise ValueError(said)


def test_hunyuan_dit_takes_no_additions(folders, tmp_path):
    (tmp_path / "lora.safetensors").touch()
    with pytest.raises(InputError, match="LoRAs are not supported"):
        load_base(folders["hunyuan-dit"], lora=tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "dpm"}, "use one of ddim, dpm-solver-multistep"),
        ({"spacing": "karras"}, "use one of leading"),
        ({"steps": 0}, "at least 1"),
        ({"spacing": "ays", "steps": 8}, "10 steps"),
    ],
)
def test_schedules_that_do_not_exist(settings, message):
    with pytest.raises(InputError, match=message):
        Schedule(**settings)


def test_steps_that_a_sampler_does_not_have(sdxl):
    with pytest.raises(InputError, match="60"):
        levels(sdxl, Schedule("lcm", 60))


def test_models_that_start_from_pure_noise(broken):
    edit(broken / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True, prediction_type="v_prediction")
    base = load_base(broken)
    last = levels(base, Schedule("ddim", 4, "trailing"))[0]
    assert last == Level(0.0, 1.0, 999)
    with pytest.raises(InputError, match="heun cannot start from pure noise"):
        levels(base, Schedule("heun", 4))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "lcm", "euler", "euler-ancestral", "dpm-solver-multistep"])
def test_epsilon_says_nothing_of_pure_noise(broken, sampler):
    """diffusers goes on with infinite latents, or with their noise 4096 times over."""
    edit(broken / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    base = load_base(broken)
    for spacing in (None, "trailing", "linspace"):
        if sampler == "lcm" and spacing == "linspace":
            continue  # LCM has steps of its own
        with pytest.raises(InputError, match=rf"noise \(epsilon\).*first step of {sampler}.*--spacing leading"):
            levels(base, Schedule(sampler, 4, spacing))
    if sampler != "lcm":
        assert levels(base, Schedule(sampler, 4, "leading"))[0].alpha > 0.1
