"""What golden noise costs: ``python -m benchmarks.apply [--device cuda] [--runs 20]``.

The network is timed beside the same formula built from other people's parts: timm's Swin and diffusers' AdaGroupNorm.
Weights are random, at the published size.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npnet_core.architectures import new_net
from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.config import PUBLISHED, Config, UNetConfig
from npnet_core.flops import flops
from npnet_core.golden import carry_back, golden_noise, noise_generator, to_square
from npnet_core.layers import SingularValueBranch
from npnet_core.model import NPNet

from .comfyui import MISSING, find_comfyui
from .timing import median_seconds, paired, row


class FromParts(nn.Module):
    """NPNet's formula from timm's Swin-T and diffusers' AdaGroupNorm; only the SVD branch's layers are shared."""

    def __init__(self):
        super().__init__()
        import timm
        from diffusers.models.normalization import AdaGroupNorm

        self.svd_branch = SingularValueBranch(256, 2, False)
        self.text = AdaGroupNorm(77 * 2048, 4, 1, eps=1e-6)
        self.down, self.up = nn.Conv2d(4, 3, 1), nn.Conv2d(7, 4, 1)
        self.swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
        self.alpha, self.beta = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, noise: Tensor, prompt: Tensor) -> Tensor:
        e = self.text(noise, prompt.flatten(1))
        picture = self.down(F.interpolate(noise + e, (224, 224)))
        residual = self.up(F.interpolate(self.swin.forward_features(picture), (128, 128)))
        return self.svd_branch(noise) + (2 * torch.sigmoid(self.alpha) - 1) * e + self.beta * residual


def forward(device: str, runs: int) -> None:
    torch.manual_seed(0)
    ours, parts = NPNet(PUBLISHED["sdxl"]).to(device).eval(), FromParts().to(device).eval()
    for batch in (1, 8):
        noise = torch.randn(batch, 4, 128, 128, device=device)
        prompt = torch.randn(batch, 77, 2048, device=device)
        a, b, ratio = paired(lambda n=noise, p=prompt: ours(n, p), lambda n=noise, p=prompt: parts(n, p), runs)
        row(
            f"forward, batch {batch}, {device}: ours / from parts",
            f"{1e3 * a:.0f} / {1e3 * b:.0f} ms = {ratio:.2f}",
            "≤ 1.05",
        )


def unet(device: str, runs: int) -> None:
    """The U-Net beside the published architecture, both at SDXL's size."""
    torch.manual_seed(0)
    ours, published = (new_net(config).to(device).eval() for config in (UNetConfig(), PUBLISHED["sdxl"]))
    for batch in (1, 8):
        noise = torch.randn(batch, 4, 128, 128, device=device)
        prompt = torch.randn(batch, 77, 2048, device=device)
        a, b, ratio = paired(lambda n=noise, p=prompt: ours(n, p), lambda n=noise, p=prompt: published(n, p), runs)
        row(f"U-Net / published, batch {batch}, {device}", f"{1e3 * a:.0f} / {1e3 * b:.0f} ms = {ratio:.2f}", "≤ 1")
        a, b = (flops(lambda n=npnet, x=noise, p=prompt: n(x, p)) / 1e9 for npnet in (ours, published))
        row("", f"{a:.1f} / {b:.1f} GFLOP = {a / b:.2f}", "≤ 1")


def loading(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "npnet.safetensors"
        save_npnet(NPNet(PUBLISHED["sdxl"]), path)
        size = path.stat().st_size / 1e6
        row(f"loading {size:.0f} MB", f"{median_seconds(lambda: load_npnet(path), runs):.3f} s", "≤ 0.3 s")


def transport(runs: int) -> None:
    for width, height in ((1216, 832), (1536, 640), (2048, 2048)):
        noise = torch.randn(1, 4, height // 8, width // 8)

        def there_and_back(noise=noise):
            fresh = torch.randn(1, 4, 128, 128, generator=noise_generator(noise[0]))
            carry_back(to_square(noise, 128, fresh), *noise.shape[-2:])

        row(f"transport, {width}x{height}", f"{1e3 * median_seconds(there_and_back, runs):.1f} ms", "≤ 10 ms")


def start(runs: int) -> None:
    """The time that importing the pack takes in a process that has imported what ComfyUI imports anyway."""
    comfyui = find_comfyui()
    if comfyui is None:
        row("the pack's share of ComfyUI's start", "not measured", MISSING)
        return
    root = Path(__file__).resolve().parents[1]
    script = f"""
import asyncio, importlib.util, sys, time
sys.path.insert(0, {str(comfyui)!r}); sys.argv = ["main.py", "--cpu"]
import comfy.options; comfy.options.enable_args_parsing()
import nodes, comfy_extras.nodes_custom_sampler
from comfy_api.latest import io
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack", {str(root / "__init__.py")!r})
sys.modules["pack"] = pack = importlib.util.module_from_spec(spec); spec.loader.exec_module(pack)
nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
[node.GET_SCHEMA() for node in nodes]
print(time.perf_counter() - start)
"""
    times = [
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
        for _ in range(runs)
    ]
    row("the pack's share of ComfyUI's start", f"{statistics.median(times):.3f} s", "≤ 0.1 s")


def memory(config: Config, device: str) -> None:
    """Peak memory of golden_noise beyond what is held before it; the same at any batch, images come one by one."""
    npnet = new_net(config).to(device).eval()
    noise, prompt = torch.randn(1, 4, 104, 152), torch.randn(1, 77, 2048)
    what = f"memory beside the weights, {config.architecture}, {device}"
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        golden_noise(npnet, noise, prompt)
        row(what, f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f} MiB", "≤ 250 MiB")
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
        before = resident("VmRSS")
        golden_noise(npnet, noise, prompt)
        row(what, f"{resident('VmHWM') - before:.0f} MiB", "≤ 250 MiB")
    else:
        row(what, "not measured", "needs Linux or a GPU")


def resident(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def share_of_an_image(device: str) -> None:
    """What share of a 50-step SDXL image the net costs: a UNet of SDXL's size with random weights, in fp16."""
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    with torch.device(device):
        unet = UNet2DConditionModel(**config).half().eval()
        x, prompt = torch.randn(2, 4, 128, 128).half(), torch.randn(2, 77, 2048).half()
        added = {"text_embeds": torch.randn(2, 1280).half(), "time_ids": torch.zeros(2, 6).half()}
    step = median_seconds(lambda: unet(x, 500, prompt, added_cond_kwargs=added), 10)
    npnet = NPNet(PUBLISHED["sdxl"]).to(device).eval()
    noise, one = torch.randn(1, 4, 128, 128), torch.randn(1, 77, 2048)
    net = median_seconds(lambda: golden_noise(npnet, noise, one), 10)
    row("share of 50 guided SDXL steps", f"{1e3 * net:.0f} ms = {net / (50 * step):.2%}", "the paper: 3 %")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.runs} runs")
    forward("cpu", options.runs)
    if options.device != "cpu":
        forward(options.device, options.runs)
    for device in dict.fromkeys(("cpu", options.device)):
        unet(device, options.runs)
    loading(options.runs)
    transport(options.runs)
    for config in (PUBLISHED["sdxl"], UNetConfig()):
        memory(config, options.device)
    start(5)
    if options.device != "cpu":
        share_of_an_image(options.device)
    else:
        row("share of 50 guided SDXL steps", "not measured", "needs a GPU")


if __name__ == "__main__":
    main()
