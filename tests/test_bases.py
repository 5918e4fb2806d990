"""Base models against diffusers' own pipelines, on real pipelines at tiny size, saved and loaded again."""

from __future__ import annotations

import diffusers
import pytest
import torch

from tests import tiny_pipelines
from trainer.bases import (
    SAMPLERS,
    STOCHASTIC,
    Schedule,
    decode,
    encode,
    initial_noise,
    load_base,
    sample,
)

KINDS = {
    "sdxl": tiny_pipelines.tiny_sdxl,
    "hunyuan-dit": tiny_pipelines.tiny_hunyuan_dit,
    "sd1": lambda folder: tiny_pipelines.tiny_sd(folder, 768),
    "sd2": lambda folder: tiny_pipelines.tiny_sd(folder, 1024, prediction="v_prediction", use_linear_projection=True),
    "sd": tiny_pipelines.tiny_sd,
}
PROMPTS = ["a red circle left of a blue square", "one green square"]
SEEDS = [3, 1024]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {kind: build(root / kind) for kind, build in KINDS.items()}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def base(folders, kind):
    return load_base(folders[kind])


def pipeline(folder, sampler="ddim", **settings):
    """The pipeline as diffusers loads it, with a scheduler of its own."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    name, ours = SAMPLERS[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(
        pipe.scheduler.config, **{"set_alpha_to_one": False, **ours, **settings}
    )
    return pipe


def run(pipe, cfg=5.5, steps=4, output="latent", **inputs):
    if isinstance(pipe, diffusers.HunyuanDiTPipeline):
        inputs |= {"use_resolution_binning": False}
    return pipe(
        PROMPTS, num_inference_steps=steps, guidance_scale=cfg, height=128, width=96, output_type=output, **inputs
    ).images


@pytest.mark.parametrize("cfg", [1.0, 5.5])
def test_samples_like_the_pipeline(folders, kind, base, cfg):
    noise = initial_noise(base, SEEDS, 128, 96)
    expected = run(pipeline(folders[kind]), cfg, latents=noise.clone())
    ours = sample(base, noise, encode(base, PROMPTS), Schedule("ddim", 4), cfg)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_like_the_pipeline(folders, sampler):
    """Its own initial noise and its own stream of noise, one generator per image."""
    base = load_base(folders["sdxl"])
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    expected = run(pipeline(folders["sdxl"], sampler), steps=5, generator=generators)
    seeds = SEEDS if sampler in STOCHASTIC else None
    noise = initial_noise(base, SEEDS, 128, 96)
    ours = sample(base, noise, encode(base, PROMPTS), Schedule(sampler, 5), 5.5, seeds=seeds)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_decodes_like_the_pipeline(folders, kind, base):
    noise = initial_noise(base, SEEDS, 128, 96)
    expected = torch.as_tensor(run(pipeline(folders[kind]), output="pt", latents=noise)).permute(0, 2, 3, 1)
    latents = sample(base, noise, encode(base, PROMPTS), Schedule("ddim", 4), 5.5)
    images = decode(base, latents, batch=1)
    assert images.shape == (2, 128, 96, 3)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)
