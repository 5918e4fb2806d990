"""What Re-denoise Pair costs beside the model's own evaluations: ``python -m benchmarks.redenoise [--runs 20]``.

Runs in a real ComfyUI ($COMFYUI_PATH or ~/ComfyUI) on the CPU, with a small SDXL of random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import sys
import time
from pathlib import Path

from .comfyui import MISSING, find_comfyui
from .timing import row

ROOT = Path(__file__).resolve().parents[1]


def start_comfyui() -> None:
    """Make ``comfy`` and ComfyUI's ``nodes`` importable, and our pack as ``npnet_pack``."""
    import tests.nodes  # noqa: F401  ours, before ComfyUI's folder brings its own

    sys.path.insert(0, str(find_comfyui()))
    sys.argv = [sys.argv[0], "--cpu", "--use-pytorch-cross-attention"]
    import comfy.options

    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location("npnet_pack", ROOT / "__init__.py")
    sys.modules["npnet_pack"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    asyncio.run(pack.comfy_entrypoint())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--side", type=int, default=64, help="of the latent, in latent pixels")
    options = parser.parse_args()
    if find_comfyui() is None:
        row("Re-denoise Pair", "not measured", f"ComfyUI not found: {MISSING}")
        return
    start_comfyui()

    import torch
    from comfy_extras.nodes_custom_sampler import BasicScheduler, RandomNoise

    from tests.nodes.conditionings import conditioning
    from tests.nodes.tiny_pack.models import tiny_sdxl

    node = sys.modules["npnet_pack.nodes.redenoise"].NPNetRedenoisePair
    model = tiny_sdxl()
    (sigmas,) = BasicScheduler().get_sigmas(model, "normal", 10, 1.0)
    (noise,) = RandomNoise().get_noise(7)
    positive, negative = conditioning("sdxl", 1), conditioning("sdxl", 2)

    spent, rows = [0.0], [0]
    forward = model.model.diffusion_model.forward

    def timed(x, *args, **kwargs):
        start = time.perf_counter()
        result = forward(x, *args, **kwargs)
        spent[0] += time.perf_counter() - start
        rows[0] += len(x)
        return result

    model.model.diffusion_model.forward = timed
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.runs} runs")
    for batch, rounds in ((1, 1), (2, 3)):
        latent = {"samples": torch.zeros(batch, 4, options.side, options.side)}
        inside, beside = [], []
        for _ in range(options.runs + 1):
            spent[0], rows[0] = 0.0, 0
            start = time.perf_counter()
            with torch.inference_mode():
                node.execute(
                    model, positive, negative, noise, sigmas, latent,
                    cfg=5.5, inversion_cfg=1.0, rounds=rounds, inversion="exact", depth=1,
                )  # fmt: skip
            total = time.perf_counter() - start
            inside.append(spent[0])
            beside.append(total - spent[0])
        model_ms, own_ms = (1e3 * statistics.median(values[1:]) for values in (inside, beside))
        what = f"batch {batch}, {rounds} round{'s' * (rounds > 1)}"
        row(f"{what}: rows per image and round", f"{rows[0] / batch / rounds:g}", "3")
        row(
            f"{what}: beside {model_ms:.0f} ms in the model",
            f"{own_ms:.1f} ms",
            f"≤ {10 + 0.03 * model_ms:.1f} ms",
        )


if __name__ == "__main__":
    main()
