"""What re-denoising gains in the shapes world: ``python -m benchmarks.shapes [--base flow] [--pairs 1000]``.

The same captions and seeds throughout; sampled in ten steps at guidance 1 (the strong setting) and at the world's own
(the weak one). Every method changes only the noise: guidance 5.5 down and 1 back, as in the paper.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base, Prompts, Schedule
from trainer.collecting.redenoising import REDENOISING
from trainer.distributed import find_device
from trainer.evaluation.statistics import compare
from trainer.shapes.pipeline_stages import load_models, two_settings
from trainer.shapes.world import SIZE
from trainer.shapes.worlds import WORLDS

FIXED_POINT = replace(REDENOISING, inversion="fixed-point")
METHODS = {  # name: how, and by how many captions the prompt is off
    "re-denoised, exact": (REDENOISING, 0),
    "re-denoised, as released": (replace(REDENOISING, inversion="released"), 0),
    "re-denoised three times": (replace(REDENOISING, rounds=3), 0),
    "re-denoised, fixed point": (FIXED_POINT, 0),
    "re-denoised, two steps deep": (replace(FIXED_POINT, depth=2), 0),
    "re-denoised, three steps deep": (replace(FIXED_POINT, depth=3), 0),
    "control: re-denoised for another caption": (REDENOISING, 1),
    "control: three steps deep for another": (replace(FIXED_POINT, depth=3), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--captions", choices=("choose", "report"), default="choose", help="see split_captions")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first noise")
    parser.add_argument("--base", choices=tuple(WORLDS), default="sd")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"), help="pixels")
    options = parser.parse_args()

    world = WORLDS[options.base]()
    models, schedule = load_models(world, find_device(options.device)), world.recipe.schedule
    base = models.base
    captions = world.captions()[options.captions == "report"]
    captions = [captions[i % len(captions)] for i in range(options.pairs)]
    noise = bases.initial_noise(base, range(options.seed, options.seed + options.pairs), *options.size)
    prompts = bases.encode(base, captions)
    start = time.perf_counter()

    golden = {}
    for name, (redenoising, off) in METHODS.items():
        others = [(i + off) % len(captions) for i in range(len(captions))]
        golden[name] = in_batches(
            lambda x, p, way=redenoising: way.redenoised(base, p, x, schedule).target, noise, prompts[others]
        )

    judges = list(dict.fromkeys((world.reports, world.selects)))
    head = ["guidance", "noise", "N"]
    head += [column for kind in judges for column in (f"wins, {kind} [95 %]", f"difference, {kind} [95 %]")]
    head += ["captions right (standard)"]
    print("| " + " | ".join(head) + " |", "|---" * len(head) + "|", sep="\n")
    for setting in two_settings(world).values():
        score = scored(base, models.scorers, captions, prompts, schedule, setting.cfg)
        before = score(noise)
        for name, target in golden.items():
            after = score(target)
            row = [f"{setting.cfg:g}", name, str(len(captions))]
            for kind in judges:
                c = compare(before[kind].tolist(), after[kind].tolist(), captions)
                row += [
                    f"{c.wins:.3f} [{c.wins_low:.3f}, {c.wins_high:.3f}]",
                    f"{c.difference:+.2f} [{c.difference_low:+.2f}, {c.difference_high:+.2f}]",
                ]
            row += [f"{after['captions-right'].mean():.3f} ({before['captions-right'].mean():.3f})"]
            print("| " + " | ".join(row) + " |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s, {torch.get_num_threads()} threads")


def scored(
    base: Base, scorers: Sequence[Scorer], captions: Sequence[str], prompts: Prompts, schedule: Schedule, cfg: float
) -> Callable[[Tensor], dict[str, Tensor]]:
    """noise [B, C, h, w] → each scorer's scores [B] of the images that come of it, for B captions and prompts."""

    def score(noise: Tensor) -> dict[str, Tensor]:
        latents = in_batches(lambda x, p: bases.sample(base, x, p, schedule, cfg), noise, prompts)
        images = bases.decode(base, latents, batch=50)
        return {scorer.kind: torch.as_tensor(scorer.score(images, captions)) for scorer in scorers}

    return score


def in_batches(compute: Callable[[Tensor, Prompts], Tensor], noise: Tensor, prompts: Prompts, size: int = 50) -> Tensor:
    """``compute(noise, prompts)`` of B noises and B prompts, ``size`` at a time."""
    with torch.no_grad():
        return torch.cat(
            [compute(noise[i : i + size], prompts[slice(i, i + size)]) for i in range(0, len(noise), size)]
        )


if __name__ == "__main__":
    main()
