"""What only a card can tell, section by section: ``python -m benchmarks.gpu [SECTION…] [--device cuda] [--tiny]``.

Weights are random, at the published sizes; with ``--tiny`` small, so that every section runs on a CPU too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from npnet_core.architectures import GoldenNet, new_net
from npnet_core.config import MENDED, PUBLISHED, Config, NPNetConfig, UNetConfig
from npnet_core.golden import golden_noise

from .apply import memory
from .comfyui import MISSING, find_comfyui
from .timing import median_seconds, row

SIZES = [(128, 128), (104, 152)]  # of latents: 1024x1024, and 1216x832
TINY_SIZES = [(16, 16), (12, 20)]
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Machine:
    """Where sections run: the device beside the CPU, and whether at tiny sizes."""

    device: str
    tiny: bool


class Missing(Exception):
    """What a section needs and the machine has not, in the line that is printed instead of its figures."""


def configs(tiny: bool) -> dict[str, Config]:
    """Every architecture, the published one with and without its quirks."""
    if not tiny:
        return {"published": PUBLISHED["sdxl"], "mended": NPNetConfig(**MENDED), "unet": UNetConfig()}
    swin = {"swin_size": 32, "swin_dim": 24, "swin_depths": (1, 1), "swin_heads": (1, 2), "swin_window": 4}
    return {
        "published": NPNetConfig(resolution=16, **swin),
        "mended": NPNetConfig(resolution=16, **swin, **MENDED),
        "unet": UNetConfig(resolution=16, widths=(32, 64)),
    }


def random_net(config: Config) -> GoldenNet:
    """A net in eval mode that changes the noise: what starts at zero in a new one is drawn too."""
    torch.manual_seed(0)
    npnet = new_net(config).eval().requires_grad_(False)
    for parameter in npnet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return npnet


def inputs(config: Config, height: int, width: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, config.channels, height, width, generator=generator)
    return noise, torch.randn(batch, config.prompt_tokens, config.prompt_dim, generator=generator)


@torch.inference_mode()
def agreement(machine: Machine) -> None:
    """Golden noise on the device, and twice there, against golden noise on the CPU."""
    for name, config in configs(machine.tiny).items():
        npnet = random_net(config)
        for height, width in TINY_SIZES if machine.tiny else SIZES:
            noise, prompt = inputs(config, height, width)
            expected = golden_noise(npnet.to("cpu"), noise, prompt)
            first, second = (golden_noise(npnet.to(machine.device), noise, prompt) for _ in range(2))
            what = f"{name}, {width}x{height}"
            row(f"{what}: CPU against {machine.device}", f"{(first - expected).abs().max():.1e}", "≤ 1e-4")
            row(f"{what}: twice on {machine.device}", f"{(first - second).abs().max():.1e}", "0")


@torch.inference_mode()
def cost(machine: Machine) -> None:
    """Milliseconds of golden noise for an image, and memory beside the weights."""
    for name, config in configs(machine.tiny).items():
        npnet = random_net(config).to(machine.device)
        noise, prompt = inputs(config, *(TINY_SIZES if machine.tiny else SIZES)[1], batch=1)
        time = median_seconds(lambda n=npnet, x=noise, p=prompt: golden_noise(n, x, p), 5)
        weights = sum(parameter.nbytes for parameter in npnet.parameters()) / 2**20
        row(f"{name}, {machine.device}", f"{1e3 * time:.1f} ms, {weights:.0f} MiB")
        memory(config, machine.device)


def comfyui(machine: Machine) -> None:
    """Nets and a scorer in the real ComfyUI, whose memory management loads, evicts and loads them again."""
    folder = find_comfyui()
    if folder is None:
        raise Missing(MISSING)
    command = [sys.executable, "-m", "benchmarks.in_comfyui", str(folder), machine.device]
    run = subprocess.run(
        [*command, *["--tiny"] * machine.tiny],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    print(run.stdout, end="", flush=True)
    if run.returncode != 0:
        raise Missing(f"ComfyUI in {folder} did not run: {(run.stderr.splitlines() or ['it said nothing'])[-1]}")


def trainer(machine: Machine) -> None:
    """Pairs, fits and a comparison in the shapes world, on the device beside the CPU."""
    from .stages import measure

    measure(machine.device, machine.tiny)


SECTIONS: dict[str, Callable[[Machine], None]] = {
    "agreement": agreement,
    "cost": cost,
    "comfyui": comfyui,
    "trainer": trainer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}: choose from {', '.join(SECTIONS)}")
    if options.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(
            "no CUDA card on this machine, or a torch without CUDA: --device cpu --tiny tries the sections"
        )
    card = torch.cuda.get_device_name() if options.device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{card}, torch {torch.__version__}")
    for name in options.sections or SECTIONS:
        print(f"\n{name}: {SECTIONS[name].__doc__}")
        try:
            SECTIONS[name](Machine(options.device, options.tiny))
        except Missing as missing:
            row(name, "not measured", str(missing))


if __name__ == "__main__":
    main()
