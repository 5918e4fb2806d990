"""Nets and a scorer in the hands of ComfyUI: loaded, evicted, loaded again. For :mod:`benchmarks.in_comfyui`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfyui_version
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

import nodes
import npnet_core.preference
import npnet_core.tensorfile
from npnet_core.checkpoint import save_npnet
from npnet_core.golden import golden_noise
from tests.nodes import scorers

from .gpu import SIZES, TINY_SIZES, configs, inputs, random_net
from .sizes import REDUCED
from .timing import row

PROMPT = "a red circle left of a blue square"


@dataclass(frozen=True)
class Given:
    """A NOISE that is there already."""

    noise: Tensor
    seed: int = 0

    def generate_noise(self, latent: dict) -> Tensor:
        return self.noise


@torch.inference_mode()
def measure(base: Path, device: str, tiny: bool) -> None:
    row(f"ComfyUI {comfyui_version.__version__}: dynamic memory", dynamic_memory())
    nets(base, device, tiny)
    scorer(base, device, tiny)


def dynamic_memory() -> str:
    """``on``, or why it is off."""
    memory = getattr(comfy, "memory_management", None)
    if memory is None:
        return "none before 0.12"
    if memory.aimdo_enabled:
        return "on"
    if comfy.model_management.get_torch_device().type == "cpu":
        return "off, it needs a card"
    return "off: see if the package comfy-aimdo is there and torch is 2.8 or newer"


def nets(base: Path, device: str, tiny: bool) -> None:
    load, make = (nodes.NODE_CLASS_MAPPINGS[name].execute for name in ("NPNetLoad", "NPNetNoise"))
    for name, config in configs(tiny).items():
        npnet = random_net(config)
        save_npnet(npnet, base / "models" / "npnet" / f"{name}.safetensors")
        noise, prompt = inputs(config, *(TINY_SIZES if tiny else SIZES)[1])
        expected = golden_noise(npnet, noise, prompt)
        (loaded,) = load(f"{name}.safetensors").args
        conditioning = [[prompt, {"pooled_output": torch.zeros(len(prompt), 1280)}]]
        (golden,) = make(loaded, Given(noise), conditioning, 1.0, "truncate").args
        rounds(name, loaded.patcher, device, expected, lambda golden=golden: golden.generate_noise({}))


def scorer(base: Path, device: str, tiny: bool) -> None:
    core = SimpleNamespace(npnet_core=npnet_core)  # where the tests give the pack
    file = scorers.save_tiny_scorer(core, base, sizes=scorers.SIZES if tiny else REDUCED)
    images = torch.rand(3, 64, 48, 3, generator=torch.Generator().manual_seed(2))
    (loaded,) = nodes.NODE_CLASS_MAPPINGS["NPNetScorerLoad"].execute(file, "auto").args
    expected = loaded.scorer.score(images, [PROMPT] * len(images))  # where it was loaded to
    loaded.scorer.text.known.clear()
    rounds("pickscore", loaded.patcher, device, expected, lambda: loaded.score(images, PROMPT))


def rounds(what: str, patcher: ModelPatcher, device: str, expected: Tensor, compute: Callable[[], Tensor]) -> None:
    """Compute where ComfyUI loads the model, evict it and compute again, evict half of it and compute again."""
    first = compute()
    row(f"{what}: CPU against {device}", f"{(first - expected).abs().max():.1e}", "≤ 1e-4")
    loaded = patcher.loaded_size()
    comfy.model_management.unload_all_models()
    sizes = [f"{size / 2**20:.1f}" for size in (loaded, patcher.loaded_size(), patcher.model_size())]
    row(f"{what}: {type(patcher).__name__}, MiB loaded, evicted, in all", " ".join(sizes))
    row(f"{what}: after it was loaded again", f"{(compute() - first).abs().max():.1e}", "0")
    if patcher.loaded_size() and device != "cpu":
        patcher.partially_unload(patcher.offload_device, patcher.loaded_size() // 2)
        row(f"{what}: after half of it was evicted", f"{(compute() - first).abs().max():.1e}", "0")
