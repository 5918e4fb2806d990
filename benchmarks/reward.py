"""What golden noise by reward gains in the shapes world: ``python -m benchmarks.reward --out FOLDER [--device cuda]``.

A one- or two-step model is distilled from the world's own (``--few-step`` names one that is there already), nets are
trained on detector A's likelihood of the captions that may be fitted on, and captions that no net has seen are judged
by detector B: golden noise against plain noise of the same seeds, against noise that was made for another caption, and
against the better of two plain noises by A, which costs as many predictions in one step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.adapter import Adapter
from npnet_core.architectures import GoldenNet
from npnet_core.checkpoint import load_npnet
from npnet_core.preference import Scorer
from npnet_core.prompt_form import canonical
from trainer import bases
from trainer.bases import Base, Schedule
from trainer.evaluation.statistics import compare
from trainer.fitting.fit import fit
from trainer.fitting.settings import NetSettings, Reward, Runtime, Settings, Training
from trainer.shapes import WEIGHTS, world
from trainer.shapes.distill import distil
from trainer.shapes.scorer import load_scorers

NETS = {"unet": {"arch": "unet", "widths": (64, 64, 96)}, "adapter": {"arch": "adapter", "rank": 16}}
SEED = 3_000_000  # of the first noise that is reported
BATCH = 250  # images at once
JUDGED, SELECTS, RIGHT = "shapes-b", "shapes-a", "captions-right"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--teacher", choices=("base", "flow"), default="base", help="of the world's two models")
    parser.add_argument("--few-step", type=Path, help="a distilled model's folder, instead of distilling one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=400, help="of the distillation")
    parser.add_argument("--seconds", type=float, help="that the distillation may take")
    parser.add_argument("--distil-batch", type=int, default=64)
    parser.add_argument("--net", choices=tuple(NETS), nargs="*", default=["unet"], help="none: distil only")
    parser.add_argument("--steps", type=int, choices=(1, 2), default=1, help="of an image")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--penalty", type=float, default=0.3)
    parser.add_argument("--reward-clip", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=4, help="per reported caption")
    parser.add_argument("--captions", type=int, help="so many of those that are reported")
    parser.add_argument("--fitted", type=int, help="so many of those that are fitted on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_float32_matmul_precision("high")
    options.out.mkdir(parents=True, exist_ok=True)
    few_step, start = options.few_step, time.perf_counter()
    if few_step is None:
        few_step = distil(
            options.weights / options.teacher,
            options.out / f"few-step-{options.teacher}",
            [scene.caption for scene in world.SCENES],
            rounds=options.rounds,
            batch=options.distil_batch,
            seconds=options.seconds,
            seed=options.seed,
            device=options.device,
        )
        print(f"distilled in {time.perf_counter() - start:.0f} s: {few_step}", flush=True)
    scorers = {scorer.kind: scorer for scorer in load_scorers(options.weights, options.device)}
    report_base(options, few_step, scorers)
    for name in options.net:
        start = time.perf_counter()
        path = fit_net(options, name, few_step, scorers)
        print(f"{name} fitted in {time.perf_counter() - start:.0f} s", flush=True)
        for line in report_net(options, few_step, load_npnet(path), scorers):
            print(line, flush=True)


def schedule_of(base: Base, steps: int) -> Schedule:
    return Schedule("euler", steps) if base.prediction == "flow_prediction" else Schedule("ddim", steps, "trailing")


def fit_net(options, name: str, few_step: Path, scorers: dict[str, Scorer]) -> Path:
    prompts = options.out / "prompts.txt"
    prompts.write_text("\n".join(world.split_captions()[0][: options.fitted]), encoding="utf-8")
    flow = options.teacher == "flow"
    return fit(
        Settings(
            options.out / f"{name}-{options.steps}",
            Reward(
                base=str(few_step),
                prompts=prompts,
                scorer=(SELECTS,),
                weight=(1.0,),
                watch=(JUDGED,),
                penalty=options.penalty,
                reward_clip=options.reward_clip,
                sampler="euler" if flow else "ddim",
                denoising_steps=options.steps,
                validation=0.02,
                stop=False,
            ),
            NetSettings(**NETS[name]),
            Training(
                epochs=options.epochs,
                batch=options.batch,
                lr=options.lr,
                warmup=20,
                schedule="cosine",
                clip=1.0,
                seed=options.seed,
            ),
            Runtime(device=options.device, validate_every=200, checkpointing=False),
        ),
        {kind: scorers[kind] for kind in (SELECTS, JUDGED)},
    )


def report_base(options, few_step: Path, scorers: dict[str, Scorer]) -> None:
    """Captions right of the teacher and of the few-step model."""
    captions, seeds = reported(options)
    captions, seeds = captions[::4], seeds[::4]
    teacher = bases.load_base(options.weights / options.teacher, device=options.device, precision="fp32")
    student = bases.load_base(few_step, device=options.device, precision="fp32")
    print("| model | steps | guidance | captions right by B | likelihood by B |\n|---|---|---|---|---|")
    for name, base, steps, cfg in (
        ("teacher", teacher, 16, 4.0),
        ("teacher", teacher, 2, 1.0),
        ("few-step", student, 2, 1.0),
        ("few-step", student, 1, 1.0),
    ):
        noise = bases.initial_noise(base, seeds)
        scores = judged(base, noise, captions, steps, cfg, scorers)[0]
        print(f"| {name} | {steps} | {cfg:g} | {scores[RIGHT].mean():.1%} | {scores[JUDGED].mean():.2f} |", flush=True)


def reported(options) -> tuple[list[str], list[int]]:
    """Captions that no net was fitted on, each ``--seeds`` times, and a seed for each image."""
    captions = world.split_captions()[1][: options.captions]
    captions = [caption for caption in captions for _ in range(options.seeds)]
    return captions, list(range(SEED, SEED + len(captions)))


def report_net(options, few_step: Path, npnet: GoldenNet, scorers: dict[str, Scorer]) -> list[str]:
    """A table in Markdown: golden noise against plain noise, and the control."""
    base = bases.load_base(few_step, device=options.device, precision="fp32")
    npnet.to(options.device)
    captions, seeds = reported(options)
    noise = bases.initial_noise(base, seeds)
    noises = {"plain": noise} | golden_and_control(base, npnet, noise, captions, options.seeds)
    return report_noises(options, base, noises, scorers, npnet.config.architecture)


def golden_and_control(
    base: Base, npnet: GoldenNet, noise: Tensor, captions: Sequence[str], seeds: int
) -> dict[str, Tensor]:
    """Golden noise for each caption, and for another one.

    Args:
        seeds: how often each caption stands there.
    """
    asked = {"golden": captions, "made for another caption": others(captions, seeds)}
    return {name: golden_of(base, npnet, noise, each) for name, each in asked.items()}


def others(captions: Sequence[str], seeds: int) -> list[str]:
    """Another caption for each, where each stands so often."""
    return [*captions[seeds:], *captions[:seeds]]


def report_noises(options, base: Base, noises: dict[str, Tensor], scorers: dict[str, Scorer], net: str) -> list[str]:
    """A table in Markdown: every noise but ``plain`` against that, and the better of two plain ones by A.

    Args:
        noises: by name, [N, C, h, w] for what :func:`reported` gives.
        net: what figures.jsonl calls the net.
    """
    captions, seeds = reported(options)
    groups = np.repeat(np.arange(len(captions) // options.seeds), options.seeds).tolist()
    second = bases.initial_noise(base, [seed + 10**6 for seed in seeds])
    found = {
        name: judged(base, x, captions, options.steps, 1.0, scorers)
        for name, x in (noises | {"second seed": second}).items()
    }
    scores = {name: each for name, (each, _) in found.items()}
    better = scores["second seed"][SELECTS] > scores["plain"][SELECTS]
    scores["best of 2 by A"] = {
        kind: torch.where(better, scores["second seed"][kind], scores["plain"][kind]) for kind in scores["plain"]
    }
    plain, spread = scores["plain"], diversity(found["plain"][1], options.seeds)
    change = (noises["golden"] - noises["plain"]).square().mean().sqrt()
    lines = [
        "",
        f"{len(captions)} images, {options.steps} steps; root mean square of the change {change:.3f}; "
        f"plain noise: {plain[RIGHT].mean():.1%} captions right by B.",
        "",
        "| method | judge | wins against plain [95 %] | difference | captions right by B | points [95 %] | diversity |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [name for name in noises if name != "plain"] + ["best of 2 by A"]:
        images = found[name][1] if name in found else None
        share = "" if images is None else f"{diversity(images, options.seeds) / spread:.1%}"
        right = compare(plain[RIGHT].tolist(), scores[name][RIGHT].tolist(), groups)
        points = [100 * value for value in (right.difference, right.difference_low, right.difference_high)]
        for kind, judge in ((JUDGED, "B"), (SELECTS, "A")):
            c = compare(plain[kind].tolist(), scores[name][kind].tolist(), groups)
            lines.append(
                f"| {name} | {judge} | {c.wins:.3f} [{c.wins_low:.3f}, {c.wins_high:.3f}] | {c.difference:+.2f} "
                f"[{c.difference_low:+.2f}, {c.difference_high:+.2f}] | {scores[name][RIGHT].mean():.1%} "
                f"| {points[0]:+.1f} [{points[1]:+.1f}, {points[2]:+.1f}] | {share} |"
            )
    figures = {name: {kind: value.mean().item() for kind, value in each.items()} for name, each in scores.items()}
    with (options.out / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"net": net, "steps": options.steps, **figures}) + "\n")
    return lines


@torch.no_grad()
def golden_of(base: Base, npnet: GoldenNet, noise: Tensor, captions: Sequence[str]) -> Tensor:
    """Golden noise in batches, which is quicker than image by image and differs in the last bits."""
    golden = []
    for i in tqdm(range(0, len(noise), BATCH), desc="golden noise", leave=False):
        told, x = bases.encode(base, captions[i : i + BATCH]), noise[i : i + BATCH].to(base.device)
        if isinstance(npnet, Adapter):
            golden.append(bases.golden(base, npnet, x, told).cpu())
        else:
            embeds, mask = canonical(base.family, told.prompt_embeds, told.prompt_mask)
            golden.append(npnet(x, embeds, *([] if mask is None else [mask])).cpu())
    return torch.cat(golden)


def judged(
    base: Base, noise: Tensor, captions: Sequence[str], steps: int, cfg: float, scorers: dict[str, Scorer]
) -> tuple[dict[str, Tensor], Tensor]:
    """Scores [N] by kind, and the images [N, H, W, 3]."""
    images = []
    for i in tqdm(range(0, len(noise), BATCH), desc="images", leave=False):
        told = bases.encode(base, captions[i : i + BATCH])
        latents = bases.sample(base, noise[i : i + BATCH], told, schedule_of(base, steps), cfg)
        images.append(bases.decode(base, latents, batch=BATCH))
    scores = {
        kind: torch.cat([scorer.score(x, captions[i * BATCH : i * BATCH + len(x)]) for i, x in enumerate(images)])
        for kind, scorer in scorers.items()
    }
    return scores, torch.cat(images)


def diversity(images: Tensor, seeds: int) -> float:
    """Root mean square between two images of a caption, the mean over pairs and captions."""
    return torch.stack([torch.pdist(x.flatten(1)).mean() for x in images.split(seeds)]).mean().item()


if __name__ == "__main__":
    main()
