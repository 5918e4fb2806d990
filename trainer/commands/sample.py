"""``npnet sample``: a prompt's standard and golden images of the same seeds, alone and side by side."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from trainer import bases
from trainer.bases import PRESETS, SAMPLERS, SPACINGS, Preset, Schedule, default_preset
from trainer.collecting.redenoising import REDENOISING
from trainer.commands import base_model
from trainer.commands.checks import check_least_one
from trainer.commands.nets import name_npnets
from trainer.commands.options import option, required
from trainer.data.images import read_image, text_hash, write_image
from trainer.evaluation.draws import Draw
from trainer.evaluation.generate import make_batch
from trainer.evaluation.methods import check_methods, choose_methods
from trainer.evaluation.sampling_settings import Setting, read_size

BOTH = "side-by-side"
GAP = 8  # white pixels between images that stand side by side


@dataclass(frozen=True)
class Options:
    """Make images of a prompt, each from a seed's own noise and from the golden noise that a net makes of it.

    npnet sample --base models/sdxl-base --npnet run/npnet.safetensors --prompt "a red bird on a blue branch"
    npnet sample --base models/sdxl-base --npnet run/npnet.safetensors --prompt "a red bird" --seed 1 2 3 \\
        --steps 10 --cfg 1 --size 1216x832 --out samples

    Prints the files that show all of a seed side by side, standard first; those of the single images lie beside them.
    What made an image is in its PNG text chunk npnet.
    """

    base: str = required(base_model.BASE, path=True)
    npnet: tuple[str, ...] = required("FILE or NAME=FILE of one net or several")
    prompt: str = required("what the images should show")
    out: Path = option(Path("samples"), "folder for the images")
    seed: tuple[int, ...] = option((0,), "one or several")

    preset: Literal[tuple(PRESETS)] | None = option(None, base_model.PRESET)
    sampler: str | None = option(None, f"one of {', '.join(SAMPLERS)} (default: the preset's)")
    steps: int | None = option(None, "of the schedule (default: the preset's)")
    spacing: str | None = option(None, f"of the steps, one of {', '.join(SPACINGS)} (default: the base model's own)")
    cfg: float | None = option(None, "guidance scale (default: the preset's)")
    size: str | None = option(None, "WIDTHxHEIGHT in pixels (default: the control picture's, or the base model's own)")
    controlnet: str | None = option(None, "a ControlNet for an SD or SDXL, folder or hub id", path=True)
    control: Path | None = option(None, "the picture for it, of the images' size")

    batch: int = option(4, "images at once")
    device: str | None = option(None, base_model.DEVICE)
    precision: Literal["fp32", "fp16", "bf16"] | None = option(None, base_model.PRECISION)
    base_config: str | None = option(None, base_model.CONFIG, path=True)
    lora: Path | None = option(None, base_model.LORA)

    def __post_init__(self) -> None:
        if not self.npnet or not self.seed:
            raise InputError("Without a net and a seed there is nothing to compare: give --npnet and --seed.")
        if len(set(self.seed)) < len(self.seed):
            raise InputError(f"--seed {' '.join(map(str, self.seed))} came: give each seed once.")
        check_least_one(self, "batch")
        if (self.control is None) != (self.controlnet is None):
            raise InputError("A ControlNet and its picture go together: give both --controlnet and --control.")


def run(options: Options) -> None:
    schedule_from(options, next(iter(PRESETS.values())))  # complains before a model is loaded
    control = read_image(options.control) if options.control is not None else None
    npnets = {name: load_npnet(path) for name, path in name_npnets(options.npnet).items()}
    if BOTH in npnets:
        raise InputError(f"A net is named {BOTH} as the picture of all is: give it another name, NAME=FILE.")
    methods = choose_methods(("standard", "npnet"), npnets)
    base = base_model.load(options, controlnet=options.controlnet)
    height, width = choose_size(options.size, control, base.size)
    bases.latent_shape(base, height, width)
    preset = PRESETS[options.preset or default_preset(base)]
    cfg = preset.cfg if options.cfg is None else options.cfg
    bases.check_guidance(base, cfg)
    setting = Setting(schedule_from(options, preset), cfg, height, width)
    check_methods(methods, base, [setting], REDENOISING)
    for npnet in npnets.values():
        npnet.to(base.device)
    if control is not None:
        control = control.movedim(-1, 0)[None].to(base.device)

    encoded = bases.encode(base, [options.prompt])
    folder, stem = options.out / setting.name, file_stem(options.prompt)
    with tqdm(total=len(options.seed) * len(methods), unit="image") as progress:
        for i in range(0, len(options.seed), options.batch):
            draws = [Draw(options.prompt, None, seed, "") for seed in options.seed[i : i + options.batch]]
            prompts = encoded[[0] * len(draws)]
            images = {}
            for method in methods:
                with base_model.memory_for(base, f"{len(draws)} images"):
                    images[method.name], _ = make_batch(base, draws, prompts, prompts, setting, method, control)
                progress.update(len(draws))
            metadata = {"prompt": options.prompt} | setting.to_dict() | {"base_model": base.source}
            if options.control is not None:
                metadata |= {"controlnet": options.controlnet, "control": options.control.name}
            for row, each in enumerate(draws):
                name = f"{stem}-{each.seed}"
                for method, batch in images.items():
                    write_image(
                        folder / f"{name}-{method}.png", batch[row], metadata | {"seed": each.seed, "method": method}
                    )
                both = side_by_side([batch[row] for batch in images.values()])
                path = folder / f"{name}-{BOTH}.png"
                write_image(path, both, metadata | {"seed": each.seed, "methods": list(images)})
                tqdm.write(str(path))


def schedule_from(options: Options, preset: Preset) -> Schedule:
    """The preset's, and over it what was asked for."""
    asked = {name: getattr(options, name) for name in ("sampler", "steps", "spacing")}
    return dataclasses.replace(preset.images, **{name: value for name, value in asked.items() if value is not None})


def choose_size(size: str | None, control: Tensor | None, own: int) -> tuple[int, int]:
    """(height, width) of the images in pixels.

    Raises:
        InputError: for a control picture [H, W, 3] of another size than was asked for.
    """
    picture = None if control is None else tuple(control.shape[:2])
    asked = None if size is None else read_size(size)
    if picture and asked and picture != asked:
        raise InputError(
            f"The control picture is {picture[1]}x{picture[0]} and images of {size} were asked for: leave out --size, "
            "or bring the picture to that size."
        )
    return asked or picture or (own, own)


def file_stem(prompt: str) -> str:
    """The prompt's beginning for the eye, and a hash that tells prompts apart."""
    words = re.sub(r"[^\w]+", "-", prompt.lower())[:40].strip("-")
    return f"{words}-{text_hash(prompt)[:8]}".lstrip("-")


def side_by_side(images: list[Tensor]) -> Tensor:
    """[H, W, 3] each → [H, …, 3], left to right."""
    gap = torch.ones(images[0].shape[0], GAP, 3)
    parts = [part for image in images for part in (gap, image)]
    return torch.cat(parts[1:], dim=1)
