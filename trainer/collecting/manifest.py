"""What all pairs of a dataset have in common, and that a folder goes on with the same only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from npnet_core.errors import InputError
from npnet_core.npd import Manifest, NPDWriter, read_manifest
from npnet_core.redenoising import Level, check_levels
from trainer import bases
from trainer.bases import Base
from trainer.collecting.recipe import Recipe
from trainer.collecting.redenoising import check_redenoising

PAIRS_PER_PART = 64
PURE_NOISE = 4.8973451890853435e-08  # the ᾱ that ComfyUI gives to ᾱ = 0, so that its sigma is a number (4519)
COMPARED = ("base_fingerprint", "precision", "sampler", "steps", "spacing", "scorers")  # of what a manifest records


def manifest(base: Base, recipe: Recipe, scorers: Sequence[str]) -> Manifest:
    """What all pairs of a dataset have in common.

    Args:
        base: the model that samples, on whose levels noise is re-denoised, by its sibling if it has one.
        scorers: their kinds.

    Raises:
        InputError: for a model or a schedule that cannot be re-denoised with.
    """
    check_redenoising(base)
    sibling = base.sibling
    levels = bases.levels(base, recipe.schedule, bases.latent_shape(base, recipe.height, recipe.width))
    check_levels(levels, recipe.inversion, recipe.depth)
    return Manifest(
        base_family=base.family,
        sigmas=tuple(comfyui_sigma(level, base.prediction) for level in levels[: recipe.depth + 1]),
        cfg=recipe.cfg,
        inversion_cfg=recipe.inversion_cfg,
        inversion=recipe.inversion,
        rounds=recipe.rounds,
        guidance=(sibling or base).guidance,
        redenoised_with=None if sibling is None else bases.fingerprint(sibling)[:16],
        recorded={
            "base_model": base.source,
            "base_fingerprint": bases.fingerprint(base)[:16],
            "precision": str(base.dtype).removeprefix("torch."),
            **dataclasses.asdict(recipe.schedule),
            "scorers": list(scorers),
            **({} if sibling is None else {"redenoised_with_model": sibling.source}),
            "versions": {name: version(name) for name in ("torch", "diffusers")},
        },
    )


def comfyui_sigma(level: Level, prediction: str) -> float:
    """A base model's level as ComfyUI counts it, so that pairs made there and here can stand in one dataset."""
    return level.sigma if prediction == "flow_prediction" else level.sigma / max(level.alpha, PURE_NOISE**0.5)


def open_dataset(folder: Path, settings: Manifest, worker: str) -> NPDWriter:
    """A writer for a new dataset, or for one that was begun with these very settings.

    Raises:
        InputError: as :class:`npnet_core.npd.NPDWriter`; if images were made or scored differently (it says how).
    """
    writer = NPDWriter(folder, _as_begun(folder, settings), worker=worker, pairs_per_part=PAIRS_PER_PART)
    ours, theirs = settings.recorded, read_manifest(folder).recorded
    differing = [name for name in COMPARED if theirs.get(name) != ours[name]]
    if differing:
        named = "; ".join(f"{name} {theirs.get(name)}, not {ours[name]}" for name in differing)
        raise InputError(f"{folder} already holds another run ({named}): use its settings or another folder.")
    return writer


def _as_begun(folder: Path, settings: Manifest) -> Manifest:
    """The settings without their guidance where 0.1.0, which did not write it, began a dataset with this very model."""
    if not (folder / "manifest.json").is_file():
        return settings
    theirs, name = read_manifest(folder), "base_fingerprint"
    begun = theirs.version == 1 and theirs.recorded.get(name) == settings.recorded[name]
    return dataclasses.replace(settings, guidance="cfg") if begun else settings
