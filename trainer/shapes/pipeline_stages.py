"""The paper's three stages in the shapes world, as the demo and its tables run them: collect, fit, compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from npnet_core.architectures import GoldenNet
from npnet_core.checkpoint import load_npnet
from trainer import bases
from trainer.bases import Base
from trainer.collecting.collect import collect
from trainer.collecting.keys import pair_keys, share_of
from trainer.collecting.manifest import manifest, open_dataset
from trainer.collecting.recipe import Recipe
from trainer.collecting.redenoising import REDENOISING, Redenoising
from trainer.data.prompts import PromptRow
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.evaluation.sampling_settings import Setting
from trainer.fitting.fit import fit
from trainer.fitting.settings import NetSettings, NoisePairs, Runtime, Settings, Training
from trainer.shapes import WEIGHTS, world
from trainer.shapes.scorer import ShapesScorer, load_scorers

RECIPE = Recipe()  # the paper's for SDXL
COLLECTED_SEEDS = range(0, 1025)  # the paper's, too
REPORTED_SEEDS = range(2_000_000, 3_000_000)  # of pictures that are reported
PREFERENCE = "shapes"  # the scorer that selects

EPOCHS = 15  # longer, and it forgets captions that it was not shown: seen on held-out captions of 2,000 pairs

# Both architectures at a size that fits 16x16 latents: the paper's with a Swin of two stages over 32x32.
SMALL_SWIN = {"swin_size": 32, "swin_dim": 48, "swin_depths": (2, 2), "swin_heads": (2, 4), "swin_window": 4}
SMALL_UNET = {"arch": "unet", "widths": (64, 64, 96)}

# the demo's nets: name → what is changed in :func:`fit_net`
NETS: dict[str, dict] = {
    "npnet": {},
    "npnet-unselected": {"scorer": "none"},
    "unet": {"shape": SMALL_UNET},
}


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Args:
        captions, seeds: captions that pairs are collected for, at most the 400 that are not reported; seeds for each.
        reported_captions, reported_seeds: captions that are reported, at most 128; seeds for each.
    """

    captions: int
    seeds: int
    reported_captions: int
    reported_seeds: int


QUICK = Scale(360, 5, 100, 3)
FULL = Scale(400, 15, 128, 8)


def two_settings(height: int = world.SIZE[0], width: int = world.SIZE[1]) -> dict[str, Setting]:
    """Where the effect is strong, and where it is weak. Chosen on captions that are not reported."""
    return {
        "strong": Setting(RECIPE.schedule, 1.0, height, width),
        "weak": Setting(RECIPE.schedule, RECIPE.cfg, height, width),
    }


@dataclass(frozen=True)
class World:
    """The models of one demo."""

    base: Base
    scorers: tuple[ShapesScorer, ShapesScorer]


def load_world(folder: Path = WEIGHTS) -> World:
    """The models in a folder that :func:`trainer.shapes.train.retrain` wrote; the shipped ones by default."""
    return World(bases.load_base(folder / "base"), load_scorers(folder / "detector.safetensors"))


def collect_pairs(
    weights: Path,
    folder: Path,
    scale: Scale,
    *,
    recipe: Recipe = RECIPE,
    batch: int = 50,
    worker: tuple[int, int] = (0, 1),
) -> None:
    """Stage I: pairs with scores, for captions that are not reported.

    Args:
        weights: the folder of the models.
        folder: the dataset's.
        worker: (i, n), to do the i-th of n parts of the captions.
    """
    models = load_world(weights)
    captions = world.split_captions()[0][: scale.captions]
    shape = bases.latent_shape(models.base, recipe.height, recipe.width)
    keys = share_of(pair_keys(captions, COLLECTED_SEEDS, scale.seeds, shape), *worker)
    preference = models.scorers[:1]
    settings = manifest(models.base, recipe, [scorer.kind for scorer in preference])
    with open_dataset(folder, settings, worker=f"demo-{worker[0]}of{worker[1]}") as writer:
        collect(models.base, preference, recipe, keys, writer, batch=batch)


def fit_net(
    dataset: Path,
    out: Path,
    *,
    seed: int,
    shape: Mapping[str, object] = SMALL_SWIN,
    scorer: str = PREFERENCE,
    margin: float = 0.0,
    limit: int | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Stage II; returns the net's file. ``shape`` are fields of NetSettings, and so is ``without``."""
    return fit(
        Settings(
            out,
            NoisePairs(dataset, scorer=(scorer,), margin=(margin,), limit=limit),
            NetSettings(**shape, without=without),
            Training(lr=1e-3, schedule="cosine", warmup=20, epochs=EPOCHS, seed=seed),
            Runtime(device="cpu"),
        )
    )


def fits(nets: Mapping[str, GoldenNet]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: what ``npnet fit`` wrote into the nets' files of their selection and training."""
    head = ["net", "parameters", "pairs kept", "trained on", "steps", "explained", "prompt dependence"]
    rows = []
    for name, npnet in nets.items():
        selection, validation, training = (
            json.loads(npnet.metadata[f"npnet.{key}"]) for key in ("selection", "validation", "training")
        )
        rows.append(
            [
                name,
                f"{sum(parameter.numel() for parameter in npnet.parameters()):,}",
                f"{selection['kept']:,}",
                f"{selection['trained_on']:,}",
                f"{training['steps']:,}",
                f"{validation['validation_explained']:.1%}",
                f"{validation['prompt_dependence']:.2f}",
            ]
        )
    return head, rows


def compare(
    weights: Path,
    nets: Mapping[str, Path],
    settings: Sequence[Setting],
    out: Path,
    scale: Scale,
    *,
    methods: Sequence[str] = ("standard", "inversion", "npnet", "wrong-prompt"),
    seeds: range = REPORTED_SEEDS,
    redenoising: Redenoising = REDENOISING,
    about: Mapping[str, object] | None = None,
    worker: tuple[int, int] = (0, 1),
) -> Evaluation:
    """Stage III: everything against standard, on captions that no net was fitted on and nothing chosen on.

    Args:
        weights: the folder of the models.
        nets: name → file.
        worker: (i, n), to do the i-th of n parts of the captions.
    """
    models = load_world(weights)
    _, captions = world.split_captions()
    return evaluate(
        models.base,
        {name: load_npnet(path) for name, path in nets.items()},
        models.scorers,
        [PromptRow(caption) for caption in captions[: scale.reported_captions]],
        settings=settings,
        out=out,
        methods=methods,
        seeds=seeds,
        seeds_per_prompt=scale.reported_seeds,
        redenoising=redenoising,
        batch=50,
        about=about,
        worker=worker,
    )
