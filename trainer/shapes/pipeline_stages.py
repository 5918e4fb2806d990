"""The paper's three stages in the shapes world, as the demo and its tables run them: collect, fit, compare."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from npnet_core.architectures import GoldenNet
from npnet_core.checkpoint import load_npnet
from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base
from trainer.collecting.collect import collect
from trainer.collecting.keys import pair_keys, share_of
from trainer.collecting.manifest import manifest, open_dataset
from trainer.collecting.recipe import Recipe
from trainer.collecting.redenoising import Redenoising
from trainer.data.prompts import PromptRow
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.evaluation.sampling_settings import Setting
from trainer.fitting.fit import fit
from trainer.fitting.settings import NetSettings, NoisePairs, Runtime, Settings, Training
from trainer.shapes.world import SIZE
from trainer.shapes.worlds import Scale, World

COLLECTED_SEEDS = range(0, 1025)  # the paper's, too
REPORTED_SEEDS = range(2_000_000, 3_000_000)  # of pictures that are reported
EPOCHS = 15  # longer, and it forgets captions that it was not shown: seen on held-out captions of 2,000 pairs

# Both architectures at a size that fits small latents (8x8, the first world's 16x16): the paper's with a Swin of two
# stages over 32x32.
SMALL_SWIN = {"swin_size": 32, "swin_dim": 48, "swin_depths": (2, 2), "swin_heads": (2, 4), "swin_window": 4}
SMALL_UNET = {"arch": "unet", "widths": (64, 64, 96)}

# A net made of the base model, of all its weights: on a CPU quicker than a LoRA.
OF_THE_BASE = {"arch": "adapter", "rank": 0}

# the demo's nets: name → what is changed in :func:`fit_net`
NETS: dict[str, dict] = {
    "adapter": {"shape": OF_THE_BASE, "selected": False},
    "unet": {"shape": SMALL_UNET, "selected": False},
    "npnet": {},
}


def two_settings(world: World, size: tuple[int, int] = SIZE) -> dict[str, Setting]:
    """Where the effect is strong, and where it is weak: without guidance and with.

    Args:
        size: (height, width) in pixels.
    """
    return {
        "strong": Setting(world.recipe.schedule, 1.0, *size),
        "weak": Setting(world.recipe.schedule, world.guidance, *size),
    }


def demo_settings(world: World) -> dict[str, Setting]:
    """Where golden noise pays, few steps without guidance, and where it does not: with guidance on all of them."""
    few = dataclasses.replace(world.recipe.schedule, steps=world.recipe.schedule.steps // 2)
    return {"strong": Setting(few, 1.0, *SIZE), "weak": Setting(world.recipe.schedule, world.guidance, *SIZE)}


@dataclass(frozen=True)
class Models:
    """The models of one world."""

    base: Base
    scorers: tuple[Scorer, ...]


def load_models(world: World, device: str = "cpu") -> Models:
    """In single precision, wherever they are."""
    return Models(bases.load_base(world.base, device=device, precision="fp32"), world.scorers(world.detectors, device))


def collect_pairs(
    world: World,
    folder: Path,
    scale: Scale,
    *,
    recipe: Recipe | None = None,
    batch: int = 50,
    worker: tuple[int, int] = (0, 1),
) -> None:
    """Stage I: pairs with scores, for captions that are not reported.

    Args:
        folder: the dataset's.
        recipe: the world's by default.
        worker: (i, n), to do the i-th of n parts of the captions.
    """
    models, recipe = load_models(world), recipe or world.recipe
    captions = world.captions()[0][: scale.captions]
    shape = bases.latent_shape(models.base, recipe.height, recipe.width)
    keys = share_of(pair_keys(captions, COLLECTED_SEEDS, scale.seeds, shape), *worker)
    preference = [scorer for scorer in models.scorers if scorer.kind == world.selects]
    settings = manifest(models.base, recipe, [world.selects])
    with open_dataset(folder, settings, worker=f"demo-{worker[0]}of{worker[1]}") as writer:
        collect(models.base, preference, recipe, keys, writer, batch=batch)


def fit_net(
    world: World,
    dataset: Path,
    out: Path,
    *,
    seed: int,
    selected: bool = True,
    shape: Mapping[str, object] = SMALL_SWIN,
    margin: float = 0.0,
    limit: int | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Stage II; returns the net's file.

    Args:
        selected: whether the world's scorer that selects chooses the pairs …
        margin: … by how much the target's picture has to score higher.
        shape, without: fields of NetSettings.
    """
    return fit(
        Settings(
            out,
            NoisePairs(dataset, scorer=(world.selects if selected else "none",), margin=(margin,), limit=limit),
            NetSettings(**shape, without=without),
            Training(lr=1e-3, schedule="cosine", warmup=20, epochs=EPOCHS, seed=seed),
            Runtime(device="cpu", checkpointing=False),
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
                f"{validation.get('prompt_dependence', math.nan):.2f}",  # none of fewer than two held-out prompts
            ]
        )
    return head, rows


def compare(
    world: World,
    nets: Mapping[str, Path],
    settings: Sequence[Setting],
    out: Path,
    scale: Scale,
    *,
    methods: Sequence[str] = ("standard", "inversion", "npnet", "wrong-prompt"),
    seeds: range = REPORTED_SEEDS,
    redenoising: Redenoising | None = None,
    about: Mapping[str, object] | None = None,
    worker: tuple[int, int] = (0, 1),
) -> Evaluation:
    """Stage III: everything against standard, on captions that no net was fitted on and nothing chosen on.

    Args:
        nets: name → file.
        redenoising: for ``inversion``; by default the world's recipe, on its own schedule whatever the setting's.
        worker: (i, n), to do the i-th of n parts of the captions.
    """
    models = load_models(world)
    _, captions = world.captions()
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
        redenoising=redenoising or world.recipe,
        batch=50,
        about=about,
        worker=worker,
    )
