"""Load Small Pipeline gives the model of the trainer: the same prompts, predictions, pictures."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from npnet_core import architectures, checkpoint, config
from npnet_core.adapter import Adapter
from tests.nodes.sampling import GOLDEN, ksample, source_noise
from tests.nodes.templates import canvas_problems, overlaps, prompt_problems, to_prompt
from trainer import bases
from trainer.bases import Schedule
from trainer.shapes import BASE
from trainer.shapes.in_comfyui import WORKFLOW, install
from trainer.shapes.worlds import stable_diffusion

NAME = "shapes"
CAPTION = "a small red cross at the left on a dark ground"


@pytest.fixture(scope="module")
def folder(comfy_base):
    target = comfy_base / "models" / "diffusers" / NAME
    shutil.copytree(BASE, target)
    yield target
    shutil.rmtree(target)


@pytest.fixture(scope="module")
def loaded(folder, call):
    """MODEL, CLIP, VAE."""
    return call("NPNetSmallPipelineLoad", pipeline=NAME)


@pytest.fixture(scope="module")
def base():
    return bases.load_base(BASE, precision="fp32")


def shapes_net(folder) -> Path:
    """A net for the shapes world that moves the noise."""
    net = architectures.new_net(
        config.UNetConfig(family="sd", prompt_dim=64, prompt_tokens=16, resolution=8, channels=4, widths=(32, 64))
    )
    with torch.no_grad():  # a new net is the identity
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1)
    checkpoint.save_npnet(net, folder / "net.safetensors")
    return folder / "net.safetensors"


def shapes_adapter(folder, base, rank: int = 0) -> Path:
    """A net made of the shapes world's Stable Diffusion that moves the noise."""
    adapter = Adapter(bases.adapter_config(base, rank, bases.levels(base, Schedule("ddim", 10))[0], 1.0, 8))
    with torch.no_grad():  # a new net is the identity
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.02)
    path = folder / f"shapes-adapter-{rank}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_npnet(adapter, path)
    return path


def encoded(call, clip, text: str) -> list:
    return call("CLIPTextEncode", clip=clip, text=text)[0]


@pytest.mark.parametrize("text", [CAPTION, "", "two small blue squares on a light ground"])
def test_prompts_are_the_trainers(loaded, base, call, text):
    ((embeds, _),) = encoded(call, loaded[1], text)
    torch.testing.assert_close(embeds, base.encode_prompts([text])["prompt_embeds"], rtol=0, atol=1e-5)


def test_latents_and_pictures_are_the_trainers(loaded, base, call):
    *_, vae = loaded
    x = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    (pictures,) = call("VAEDecode", vae=vae, samples={"samples": x})
    assert pictures.shape == (2, 24, 40, 3)
    torch.testing.assert_close(pictures, bases.decode(base, x), rtol=0, atol=1e-4)
    (latent,) = call("VAEEncode", vae=vae, pixels=pictures)
    expected = base.pipe.vae.encode(2 * pictures.movedim(3, 1) - 1).latent_dist.mean
    assert latent["samples"].shape == x.shape
    torch.testing.assert_close(latent["samples"], expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def prompts(loaded, base, call):
    """Positive and negative of ComfyUI, and the trainer's; of two pictures."""
    positive, negative = (encoded(call, loaded[1], text) for text in (CAPTION, ""))
    return positive, negative, bases.encode(base, [CAPTION] * 2)


def noises() -> dict:
    return {"samples": torch.zeros(2, 4, 8, 8)}


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_pictures_of_the_ksampler_are_the_trainers(loaded, base, call, prompts, cfg):
    """On the trainer's DDIM steps, from one noise: to 0.05 in 0..1, and 0.004 in the mean. ComfyUI ends at sigma 0 and
    begins with sigma · noise, diffusers ends at the smallest sigma and begins with √(1 + sigma²) · noise."""
    model, _, vae = loaded
    positive, negative, told = prompts
    x = ksample(model, positive, negative, noises(), steps=10, cfg=cfg, sampler_name="ddim", scheduler="ddim_uniform")
    (pictures,) = call("VAEDecode", vae=vae, samples={"samples": x})
    expected = bases.decode(base, bases.sample(base, source_noise(noises()), told, Schedule("ddim", 10), cfg))
    difference = (pictures - expected).abs()
    assert difference.max() < 0.05
    assert difference.mean() < 0.004
    assert expected.std() > 0.03


@dataclass(frozen=True)
class Given:
    """A NOISE that is given."""

    noise: torch.Tensor
    seed: int = 0

    def generate_noise(self, latent: dict) -> torch.Tensor:
        return self.noise


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_on_the_trainers_levels_pictures_are_the_same(loaded, base, call, prompts, cfg):
    """Both ends as the trainer has them: to 1e-3."""
    model, _, vae = loaded
    positive, negative, told = prompts
    noise, schedule = source_noise(noises()), Schedule("ddim", 10)
    alphas = base.scheduler(schedule, bases.latent_shape(base)).alphas_cumprod
    steps = [*(level.t for level in bases.levels(base, schedule)), 0]
    steps = list(dict.fromkeys(int(t) for t in steps))
    sigmas = ((1 - alphas[steps]) / alphas[steps]).sqrt()
    (guider,) = call("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)
    (sampler,) = call("KSamplerSelect", sampler_name="ddim")
    start = Given(noise * (1 + sigmas[0] ** -2).sqrt())
    samples, _ = call(
        "SamplerCustomAdvanced", noise=start, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=noises()
    )
    x = samples["samples"] / (1 + sigmas[-1] ** 2).sqrt()
    (pictures,) = call("VAEDecode", vae=vae, samples={"samples": x})
    expected = bases.decode(base, bases.sample(base, noise, told, schedule, cfg))
    torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rank", [0, 4])
def test_an_adapter_is_the_trainers(loaded, base, call, comfy_base, prompts, rank):
    """Golden noise of a net that is made of this model, of all weights and as a LoRA."""
    path = shapes_adapter(comfy_base / "models" / "npnet", base, rank)
    adapter, (npnet,) = checkpoint.load_npnet(path), call("NPNetLoad", npnet_name=path.name)
    positive, _, told = prompts
    noise = source_noise(noises())
    given = {"npnet": npnet, "noise": Given(noise), "conditioning": positive, "model": loaded[0]}
    (golden,) = call("NPNetNoise", **given, **GOLDEN)
    expected = bases.golden(base, adapter, noise, told)
    torch.testing.assert_close(golden.generate_noise(noises()), expected, rtol=0, atol=1e-4)
    assert (expected - noise).square().mean() > 0.01


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "shapes is no StableDiffusionPipeline"),
        ("unet/config.json", {"act_fn": "gelu"}, "unet of .* has act_fn = 'gelu', where ComfyUI's network has 'silu'"),
        ("unet/config.json", {"attention_head_dim": 2}, "where ComfyUI's has heads of one width"),
        ("unet/config.json", {"layers_per_block": 2}, r"weights of the unet are not those of its config \(\d+ keys"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "this node knows epsilon and v_prediction"),
        ("vae/config.json", {"layers_per_block": 2}, r"weights of the vae are not those of its config \(\d+ keys"),
    ],
)
def test_what_comfyui_has_no_network_for_is_refused(folder, call, file, values, message):
    original = (folder / file).read_text()
    try:
        (folder / file).write_text(json.dumps(json.loads(original) | values))
        with pytest.raises(Exception, match=message):
            call("NPNetSmallPipelineLoad", pipeline=NAME)
    finally:
        (folder / file).write_text(original)


def test_a_pipeline_that_is_not_there_is_refused(folder, call):
    with pytest.raises(Exception, match=r"There is no pipeline other in models/diffusers: .* \(.*shapes.*\)"):
        call("NPNetSmallPipelineLoad", pipeline="other")


@pytest.mark.parametrize("made_of_the_base", [True, False])
def test_the_demos_workflow_runs(folder, base, tmp_path, server, made_of_the_base):
    """With the demo's kind of net and another: it opens clean, and every picture of either noise is scored."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    object_info = server.get("/object_info")
    assert canvas_problems(workflow, object_info) == []
    assert overlaps(workflow) == []
    net = shapes_adapter(tmp_path, base) if made_of_the_base else shapes_net(tmp_path)
    install(stable_diffusion(), net, server.base)
    prompt = to_prompt(workflow, object_info)
    assert prompt_problems(prompt, server.get("/object_info"), set()) == []
    for node in prompt.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"]["batch_size"] = 2
    entry = server.run(prompt)
    (report,) = (shown["text"][0] for shown in entry["outputs"].values() if "text" in shown)
    assert re.match(r"shapes-b, margin 0: \d of 2 kept\n0: -", report)
    pictures = [server.images(entry, node_id) for node_id, shown in entry["outputs"].items() if "images" in shown]
    assert [picture.shape for picture in pictures] == [(2, 128, 128, 3)] * 2
    assert not torch.equal(*pictures)
