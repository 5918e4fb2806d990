"""How good the shapes world's models are: autoencoder and detectors on real pictures, then both base models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from npnet_core.preference.shapes.detectors import DETECTORS
from npnet_core.preference.shapes.scorer import Verdict, judge
from trainer import bases
from trainer.shapes import WEIGHTS, world
from trainer.shapes.scorer import load_detector
from trainer.shapes.train import reconstruct
from trainer.shapes.worlds import WORLDS, World

GUIDANCE = (1.0, 2.0, 3.0, 5.5, 7.5)
BATCH = 100


@torch.no_grad()
def assess(weights: Path = WEIGHTS, count: int = 300, seed: int = 1_000_000, device: str | torch.device = "cpu") -> str:
    """Two tables in Markdown: the detectors on real pictures, and what both see on pictures that the base models make.

    Half of the captions are of two objects, a quarter of one and of several each; "all" weights them by how many
    captions of each kind there are.

    Args:
        weights: the folder that :func:`trainer.shapes.train.retrain` wrote.
        count: pictures per row; a share of 50 % is then sure to 7.5 percentage points at 300, to 3.4 at 1,500.
        seed: of the first picture.
    """
    detectors = {name: load_detector(name, weights, device) for name in DETECTORS}
    scenes = scenes_of_all_kinds(count, torch.Generator().manual_seed(seed))
    chosen = {name: WORLDS[name](weights) for name in ("sd", "flow")}
    loaded = {name: bases.load_base(each.base, device=device, precision="fp32") for name, each in chosen.items()}

    lines = [
        "| real pictures | autoencoder's error (rmse) | B right | A right | after the autoencoder: B | A |",
        "|---" * 6 + "|",
    ]
    generator, vae = torch.Generator(device).manual_seed(seed), loaded["sd"].pipe.vae
    for size in (world.SIZE, world.WIDE):
        images = world.draw(scenes, generator, size).images
        decoded = torch.cat([reconstruct(vae, chunk) for chunk in images.split(BATCH)])
        right = [
            share(look(detectors[name], pictures, scenes), scenes)
            for pictures in (images, decoded)
            for name in ("b", "a")
        ]
        rmse = (decoded - images).square().mean().sqrt()
        lines.append(f"| {size[0]}x{size[1]} | {rmse:.3f} | " + " | ".join(f"{each:.1%}" for each in right) + " |")

    kinds = world.KINDS_OF_CAPTIONS
    head = ["base", "size", "guidance", "B: all right", *kinds, "objects", "size", "layout", "ground"]
    head += ["A: all right", "both say the same"]
    lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    rows = [(name, size, cfg) for name in loaded for size in (world.SIZE, world.WIDE) for cfg in GUIDANCE]
    for name, size, cfg in tqdm(rows, desc="pictures", unit="row"):
        noise = bases.initial_noise(loaded[name], range(seed, seed + count), *size)
        images = pictures_of(chosen[name], loaded[name], scenes, noise, cfg).to(device)
        b, a = (look(detectors[each], images, scenes) for each in ("b", "a"))
        shares = [share(b, scenes)]
        shares += [b.all_right[[scene.about == kind for scene in scenes]].mean().item() for kind in kinds]
        shares += [share(b, scenes, field) for field in ("objects", "size", "layout", "ground")]
        shares += [share(a, scenes), (a.all_right == b.all_right).float().mean().item()]
        cells = [name, f"{size[0]}x{size[1]}", f"{cfg:g}", *(f"{each:.1%}" for each in shares)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def scenes_of_all_kinds(count: int, generator: torch.Generator) -> list[world.Scene]:
    """Half of two objects, a quarter of one and of several each; none twice before all of its kind have been."""
    scenes = []
    for kind in world.KINDS_OF_CAPTIONS:
        of_kind = [scene for scene in world.SCENES if scene.about == kind]
        order = torch.randperm(len(of_kind), generator=generator).tolist()
        number = count - 2 * (count // 4) if kind == "two" else count // 4
        scenes += [of_kind[order[i % len(order)]] for i in range(number)]
    return scenes


def share(verdict: Verdict, scenes: Sequence[world.Scene], field: str = "all_right") -> float:
    """Of all captions that there are, as each kind of them comes out."""
    right = getattr(verdict, field)
    of_kind = {kind: [scene.about == kind for scene in scenes] for kind in world.KINDS_OF_CAPTIONS}
    numbers = {kind: sum(scene.about == kind for scene in world.SCENES) for kind in of_kind}
    return sum(numbers[kind] * right[rows].mean().item() for kind, rows in of_kind.items()) / len(world.SCENES)


def look(detector: nn.Module, images: Tensor, scenes: Sequence[world.Scene]) -> Verdict:
    """On the CPU."""
    verdicts = [
        judge(detector(chunk), scenes[i * BATCH : (i + 1) * BATCH]) for i, chunk in enumerate(images.split(BATCH))
    ]
    return Verdict(*(torch.cat(values).cpu() for values in zip(*verdicts, strict=True)))


def pictures_of(each: World, base: bases.Base, scenes: Sequence[world.Scene], noise: Tensor, cfg: float) -> Tensor:
    """[N, H, W, 3], on the world's own schedule."""
    images = []
    for i in range(0, len(noise), BATCH):
        prompts = bases.encode(base, [scene.caption for scene in scenes[i : i + BATCH]])
        latents = bases.sample(base, noise[i : i + BATCH], prompts, each.recipe.schedule, cfg)
        images.append(bases.decode(base, latents, batch=BATCH))
    return torch.cat(images)
