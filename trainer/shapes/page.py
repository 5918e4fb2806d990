"""The demo's page: the report of its evaluation, and between, what the nets learnt and what they do to the noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from markupsafe import Markup
from torch import Tensor

from npnet_core.architectures import GoldenNet
from npnet_core.checkpoint import load_npnet
from npnet_core.npd import NPDReader
from trainer import bases
from trainer.bases import Base
from trainer.data.images import read_images
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.results import summarise
from trainer.fitting.history import read_history
from trainer.fitting.learning_curve import learning_curve
from trainer.report.data_uri import data_uri
from trainer.report.page import Section, block, macros, section, table
from trainer.report.report import write_report
from trainer.shapes.pipeline_stages import demo_settings, fits
from trainer.shapes.worlds import World

SHOWN = 6  # pairs whose noise is shown: the first, not the best
ENLARGED = 3  # the change, so that it can be seen beside the noise


def write_page(
    out: Path, world: World, base: Base, files: Mapping[str, Path], dataset: Path, evaluation: Evaluation
) -> None:
    """OUT/report.html, report.md and results.json, from nets' files and an evaluation whose folder is OUT too."""
    nets = {name: load_npnet(path) for name, path in files.items()}
    results = summarise(evaluation.rows, evaluation.about)
    write_report(
        out,
        results,
        [about_fits(world, dataset, nets), learning_curves(out, nets), noise_pictures(out, world, base, nets, results)],
    )


def about_fits(world: World, dataset: Path, nets: Mapping[str, GoldenNet]) -> Section:
    """Pairs, selection and fit of every net."""
    reader, recipe = NPDReader(dataset), world.recipe
    words = (
        f"{len(reader):,} pairs of noises were made for {len(reader.prompts)} captions, none of which is reported "
        f"here. They were re-denoised with {recipe}. Both noises of a pair became pictures at the guidance of its way "
        f"down, both were scored by {world.selects}, and for npnet a pair was kept if its target's picture scored "
        "higher; the other nets saw all pairs. adapter is the base model's own network with a difference of every "
        "weight, unet a U-Net of ours that reads every token, npnet the published architecture. "
        "Trained on are the kept pairs of all captions but a twentieth. Explained is the share of the target's change "
        "that a net predicts for kept pairs of the others, which it never saw: 0 is no better than leaving the noise "
        "alone. Prompt dependence is how far apart the net's changes for two captions are, in units of the change: 0 "
        "for a net that ignores the caption, about 1.4 if they have nothing in common."
    )
    head, rows = fits(nets)
    return section("Where the nets come from", [("", [block("paragraph", words), table(head, rows)])])


def learning_curves(out: Path, nets: Mapping[str, GoldenNet]) -> Section:
    """One picture per fit."""
    drawn = {name: learning_curve(read_history(out / f"fit-{name}" / "log.jsonl")) for name in nets}
    figure = macros("parts.html").figure
    return Section("What they learnt", "".join(figure(Markup(svg), name, "chart") for name, svg in drawn.items()))


def noise_pictures(out: Path, world: World, base: Base, nets: Mapping[str, GoldenNet], results: dict) -> Section:
    """Noise, golden noise, their difference and both pictures: the first pairs at the strong setting, for each net."""
    setting = demo_settings(world)["strong"]
    items = [item for item in results["items"] if item["setting"] == setting.name][:SHOWN]
    prompts = bases.encode(base, [item["prompt"] for item in items])
    noise = bases.initial_noise(base, [item["seed"] for item in items], setting.height, setting.width)
    words = (
        f"The first {len(items)} pairs, not the best. Of four latent channels the first three are shown as red, green "
        f"and blue; the change is enlarged {ENLARGED} times. Pictures are of {setting.schedule.steps} steps "
        f"at guidance {setting.cfg:g}."
    )
    head, parts = ["caption, seed", "noise", "golden noise", "change", "standard picture", "golden picture"], []
    for name, npnet in nets.items():
        golden, rows = bases.golden(base, npnet, noise, prompts), []
        for item, before, after in zip(items, noise, golden, strict=True):
            pictures = read_images([out / item["images"][method] for method in ("standard", name)])
            cells = [noise_rgb(before), noise_rgb(after), noise_rgb(ENLARGED * (after - before)), *pictures]
            rows.append([f"{item['prompt']}, {item['seed']}", *map(pixelated, cells)])
        parts.append(table(head, rows, name))
    html = "".join(each.html for each in (block("paragraph", words), *parts))
    return Section("What they do to the noise", html)


def noise_rgb(noise: Tensor) -> Tensor:
    """[C ≥ 3, h, w] of unit variance → [h, w, 3] in 0..1; three standard deviations span the range."""
    return (noise[:3] / 6 + 0.5).clamp(0, 1).movedim(0, 2)


def pixelated(image: Tensor, pixels: int = 80) -> Markup:
    """[H, W, 3] in 0..1 as an <img> whose pixels are enlarged without smoothing."""
    from PIL import Image

    picture = Image.fromarray((image * 255).round().to(torch.uint8).numpy())
    return macros("parts.html").pixels(data_uri(picture, "png"), pixels)
