"""Does an adapter that was fitted on an undistilled model help the few-step model that was distilled from it?

    python -m benchmarks.transfer ADAPTER.safetensors FEW_STEP_FOLDER --out OUT [--teacher base] [--device cuda]

In the shapes world, on captions that no net was fitted on, with images of one and two steps, detector B judges: golden
noise against plain noise of the same seeds, against noise that was made for another caption, and against the better of
two plain noises by A. With ``--teacher`` also what the adapter learnt to predict, noise that the undistilled model
re-denoises, for the caption and for another one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.adapter import batched
from benchmarks.reward import BATCH, golden_and_control, others, report_noises, reported
from npnet_core.adapter import Adapter
from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from npnet_core.redenoising import redenoise
from trainer import bases
from trainer.bases import Base, Schedule
from trainer.shapes import WEIGHTS
from trainer.shapes.scorer import load_scorers

STEPS = 10  # of the schedule that noise is re-denoised on, as benchmarks.adapter's pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path, help="an adapter of the undistilled model")
    parser.add_argument("few_step", type=Path, help="the distilled model's folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--teacher", choices=("base", "flow"), help="the undistilled model, of the world's two")
    parser.add_argument("--depth", type=int, default=3, help="steps that the teacher re-denoises")
    parser.add_argument("--cfg", type=float, default=5.5, help="guidance of the teacher on the way down")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=4, help="per reported caption")
    parser.add_argument("--captions", type=int, help="so many of those that are reported")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    npnet = load_npnet(options.net, options.device)
    if not isinstance(npnet, Adapter):
        raise InputError(f"{options.net} is no adapter: python -m benchmarks.reward reports nets of other kinds.")
    scorers = {scorer.kind: scorer for scorer in load_scorers(options.weights, options.device)}
    base = batched(bases.load_base(options.few_step, device=options.device, precision="fp32"))
    bases.check_adapter(base, npnet.config, str(options.net))
    captions, seeds = reported(options)
    noise = bases.initial_noise(base, seeds)
    noises = {"plain": noise} | golden_and_control(base, npnet, noise, captions, options.seeds)
    if options.teacher is not None:
        teacher = batched(bases.load_base(options.weights / options.teacher, device=options.device, precision="fp32"))
        asked = {"re-denoised": captions, "re-denoised for another caption": others(captions, options.seeds)}
        noises |= {name: redenoised(teacher, noise, each, options.depth, options.cfg) for name, each in asked.items()}
    for options.steps in (1, 2):
        print(*report_noises(options, base, noises, scorers, str(options.net)), sep="\n", flush=True)


def redenoised(teacher: Base, noise: Tensor, captions: Sequence[str], depth: int, cfg: float) -> Tensor:
    """What pairs of these noises [N, C, h, w] would have as targets, by fixed points."""
    sampler = "euler" if teacher.prediction == "flow_prediction" else "ddim"
    levels, targets = bases.levels(teacher, Schedule(sampler, STEPS)), []
    for i in tqdm(range(0, len(noise), BATCH), desc="re-denoising", leave=False):
        denoise = bases.denoiser(teacher, bases.encode(teacher, captions[i : i + BATCH]))
        x = noise[i : i + BATCH].to(teacher.device)
        pair = redenoise(denoise, x, levels, cfg=cfg, inversion_cfg=1.0, inversion="fixed-point", depth=depth)
        targets.append(pair.target.cpu())
    return torch.cat(targets)


if __name__ == "__main__":
    main()
