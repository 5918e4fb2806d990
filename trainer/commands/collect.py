"""``npnet collect``: prompts → a noise prompt dataset."""

from __future__ import annotations

import dataclasses
import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from npnet_core.redenoising import INVERSIONS_HELP
from trainer import bases
from trainer.bases import PRESETS, SAMPLERS, SPACINGS, Base, default_preset
from trainer.collecting.collect import collect
from trainer.collecting.estimate import estimate
from trainer.collecting.keys import pair_keys, seed_range, share_of
from trainer.collecting.manifest import manifest, open_dataset
from trainer.collecting.recipe import Recipe, preset_recipe
from trainer.collecting.scorers import HELP as SCORERS
from trainer.collecting.scorers import check_scorers, load_scorers
from trainer.commands import base_model
from trainer.commands.checks import check_least_one, check_seeds
from trainer.commands.options import option, required, save_config
from trainer.commands.workers import this_worker
from trainer.data.prompts import read_prompts

log = logging.getLogger(__name__)

# the options that are, where they are given, entries of the recipe or its schedule
RECIPE = ("sampler", "steps", "spacing", "cfg", "inversion_cfg", "rounds", "inversion", "depth", "height", "width")


@dataclass(frozen=True)
class Options:
    """Make pairs of noises for prompts: a source, and what re-denoising makes of it, both scored by their images.

    npnet collect --base models/sdxl-base --prompts prompts.txt --out datasets/sdxl
    npnet collect --base models/sdxl-base --prompts prompts.txt --out datasets/sdxl --worker 0/4
    torchrun --nproc-per-node 4 -m trainer collect --config collect.toml

    Stopped at any moment and started again with the same command it goes on where it was. Every pair is kept, with its
    scores: `npnet fit` selects.
    """

    base: str = required(base_model.BASE, path=True)
    prompts: Path = required("txt, csv, tsv, json, jsonl or parquet file, or a folder of them")
    out: Path = required("the dataset's folder")
    column: str | None = option(None, "of the prompts (default: prompt, prompts or caption)")
    seeds: tuple[int, ...] = option((0, 1024), "first and last of the seeds that are drawn for each prompt")
    seeds_per_prompt: int = option(1, "how many are drawn, the same for a prompt every time")
    scorer: tuple[str, ...] = option(("hpsv2",), SCORERS)

    preset: Literal[tuple(PRESETS)] | None = option(None, base_model.PRESET)
    sampler: str | None = option(None, f"one of {', '.join(SAMPLERS)} (default: the preset's)")
    steps: int | None = option(None, "of the schedule (default: the preset's)")
    spacing: str | None = option(None, f"of the steps, one of {', '.join(SPACINGS)} (default: the base model's own)")
    cfg: float | None = option(None, "guidance of the denoising step and of the images (default: the preset's)")
    inversion_cfg: float | None = option(None, "guidance of the inversion step (default: the preset's)")
    rounds: int = option(1, "how often re-denoising is repeated")
    inversion: Literal["exact", "released", "fixed-point"] = option("exact", INVERSIONS_HELP)
    depth: int | None = option(None, "steps taken down and back; the paper takes one (default: the preset's)")
    height: int | None = option(None, "of the images in pixels (default: the base model's own)")
    width: int | None = option(None, "of the images in pixels (default: the base model's own)")

    batch: int = option(4, "pairs at once; each is two images")
    worker: str | None = option(None, "I/N: make part I of N, counted from 0 (torchrun says it by itself)")
    limit: int | None = option(None, "make only the first so many pairs, over all workers")
    save_images: bool = option(False, "keep both images of every pair in OUT/images")
    dry_run: bool = option(
        False, "make two batches, keep nothing, say how long all will take, how large it is, what memory it needs"
    )
    device: str | None = option(None, base_model.DEVICE)
    precision: Literal["fp32", "fp16", "bf16"] | None = option(None, base_model.PRECISION)
    base_config: str | None = option(None, base_model.CONFIG, path=True)
    lora: Path | None = option(None, base_model.LORA)
    redenoise_with: str | None = option(None, base_model.SIBLING, path=True)

    def __post_init__(self) -> None:
        check_seeds(self)
        check_least_one(self, "batch", "limit")


def run(options: Options) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: finished pairs are written
    worker, workers = this_worker(options.worker)
    recipe_from(options)  # complains before a model is loaded
    prompts = read_prompts(options.prompts, options.column)
    check_scorers(options.scorer)
    base = base_model.load(options)
    if options.preset is None:
        options = dataclasses.replace(options, preset=default_preset(base))
    recipe = recipe_from(options, base)
    shape = bases.latent_shape(base, recipe.height, recipe.width)
    keys = pair_keys(prompts, seed_range(options.seeds), options.seeds_per_prompt, shape)[: options.limit]
    keys = share_of(keys, worker, workers)
    scorers = load_scorers(options.scorer, base)
    settings = manifest(base, recipe, [scorer.kind for scorer in scorers])
    with base_model.memory_for(base, f"{options.batch} pairs"):
        if options.dry_run:
            print(estimate(base, scorers, recipe, keys, batch=options.batch, images=options.save_images))
            return
        with open_dataset(options.out, settings, worker=f"{worker}of{workers}") as writer:
            save_config(resolved(options, recipe, base), options.out / f"collect-{worker}of{workers}.toml")
            images = options.out / "images" if options.save_images else None
            collect(base, scorers, recipe, keys, writer, batch=options.batch, images=images)
        log.info("%d pairs are in %s.", len(keys), options.out)


def recipe_from(options: Options, base: Base | None = None) -> Recipe:
    """The preset (SDXL's where none is named), over it the guidance that the base model's sibling is re-denoised with,
    and over that what was asked for; raises as :func:`trainer.collecting.recipe.preset_recipe`.
    """
    asked = {name: getattr(options, name) for name in RECIPE}
    if base is not None and base.sibling is not None:
        theirs = PRESETS[default_preset(base.sibling)]
        asked |= {name: getattr(theirs, name) for name in ("cfg", "inversion_cfg") if asked[name] is None}
    return preset_recipe(options.preset or next(iter(PRESETS)), **asked)


def resolved(options: Options, recipe: Recipe, base: Base) -> Options:
    """The options with everything said that the preset and the base model had left open."""
    _, height, width = bases.latent_shape(base, recipe.height, recipe.width)
    return dataclasses.replace(
        options,
        **dataclasses.asdict(recipe.schedule),
        cfg=recipe.cfg,
        inversion_cfg=recipe.inversion_cfg,
        depth=recipe.depth,
        height=height * base.pixels,
        width=width * base.pixels,
    )
