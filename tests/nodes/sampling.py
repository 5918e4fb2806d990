"""Sampling through ComfyUI's own nodes, with a look at the noise that the sampler is given."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from tests.nodes.graphs import call

SEED = 7
SETTINGS = {"steps": 3, "cfg": 5.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
GOLDEN = {"strength": 1.0, "long_prompt": "truncate"}


def empty(batch: int = 1, height: int = 12, width: int = 10) -> dict:
    """An empty LATENT; its sides are not the tiny net's 16."""
    return {"samples": torch.zeros(batch, 4, height, width)}


def picture(batch: int = 1, seed: int = 3) -> dict:
    """A LATENT that is not empty, of the size of `empty`."""
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(batch, 4, 12, 10, generator=generator)}


def source_noise(latent: dict, seed: int = SEED) -> Tensor:
    """What RandomNoise and KSampler draw for a latent."""
    return call("RandomNoise", noise_seed=seed)[0].generate_noise(latent)


def watched(model: ModelPatcher) -> tuple[ModelPatcher, list[Tensor]]:
    """A clone of a model, and the list to which each sampling adds the noise it goes on with."""
    seen = []

    def look(executor, noise, *args, **kwargs):
        seen.append(noise.clone())
        return executor(noise, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "watched", look)
    return model, seen


def ksample(model: ModelPatcher, positive: list, negative: list, latent: dict, seed: int = SEED, **changes) -> Tensor:
    """The latents [B, C, H, W] that the node KSampler makes."""
    settings = SETTINGS | changes
    (out,) = call(
        "KSampler", model=model, positive=positive, negative=negative, latent_image=latent, seed=seed, **settings
    )
    return out["samples"]


def custom_sample(
    noise, model: ModelPatcher, positive: list, negative: list, latent: dict, guider=None, **changes
) -> Tensor:
    """The same from SamplerCustomAdvanced; without a guider, from CFGGuider."""
    settings = SETTINGS | changes
    if guider is None:
        (guider,) = call("CFGGuider", model=model, positive=positive, negative=negative, cfg=settings["cfg"])
    (sampler,) = call("KSamplerSelect", sampler_name=settings["sampler_name"])
    (sigmas,) = call("BasicScheduler", model=model, **{k: settings[k] for k in ("scheduler", "steps", "denoise")})
    out, _ = call(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
    )
    return out["samples"]


def save_lora(file: Path, module: torch.nn.Module, prefix: str, seed: int = 0) -> str:
    """Write a LoRA of rank 2 for every linear layer of a module.

    Keys are `<prefix><module's name>.lora_up.weight`; gives the file's name.
    """
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, linear in module.named_modules():
        if not isinstance(linear, torch.nn.Linear):
            continue
        out_features, in_features = linear.weight.shape
        lora[f"{prefix}{name}.lora_up.weight"] = torch.randn(out_features, 2, generator=generator)
        lora[f"{prefix}{name}.lora_down.weight"] = torch.randn(2, in_features, generator=generator) / in_features**0.5
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(lora, file)
    return file.name
