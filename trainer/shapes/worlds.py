"""The worlds that the stages can run in: a base model, the scorers beside it, the captions, and how much of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from npnet_core.preference import Scorer
from trainer.bases import Schedule
from trainer.collecting.recipe import Recipe
from trainer.shapes import WEIGHTS, first, scorer, world
from trainer.shapes.first import scorer as first_scorer
from trainer.shapes.first import world as first_world


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Args:
        captions, seeds: captions that pairs are collected for, of those that are not reported; seeds for each.
        reported_captions, reported_seeds: captions that are reported; seeds for each.
    """

    captions: int
    seeds: int
    reported_captions: int
    reported_seeds: int


@dataclass(frozen=True)
class World:
    """What a worker process needs to load it all.

    Args:
        base: a pipeline folder.
        detectors: what ``scorers`` reads: a folder, or the first world's file.
        scorers: of (detectors, device).
        captions: those to choose with, and those to report on.
        reports: the kind of the scorer that is reported before all others.
        selects: the kind of the one that selects pairs and chooses settings.
        recipe: how pairs are made, by the paper or so deep that a noise holds most of what guidance gains.
        guidance: the better of 3 and 5.5, on captions to choose with.
        wide: (height, width) of the second size, in pixels.
        quick, full: the demo's, and the tables' and ``--full``'s.
    """

    base: Path
    detectors: Path
    scorers: Callable[..., tuple[Scorer, ...]]
    captions: Callable[[], tuple[list[str], list[str]]]
    reports: str
    selects: str
    recipe: Recipe
    guidance: float
    wide: tuple[int, int]
    quick: Scale
    full: Scale


def stable_diffusion(weights: Path = WEIGHTS) -> World:
    """A base that predicts v, on ten DDIM steps.

    Args:
        weights: a folder that :func:`trainer.shapes.train.retrain` wrote.
    """
    return _larger(weights, "base", Recipe(cfg=4.0, inversion="fixed-point", depth=8))


def flow(weights: Path = WEIGHTS) -> World:
    """The same with its flow model, on ten Euler steps."""
    return _larger(weights, "flow", Recipe(schedule=Schedule("euler", 10), cfg=3.0, inversion="fixed-point", depth=9))


def _larger(weights: Path, base: str, recipe: Recipe) -> World:
    return World(
        weights / base,
        weights,
        scorer.load_scorers,
        world.split_captions,
        reports="shapes-b",
        selects="shapes-a",
        recipe=recipe,
        guidance=3.0,
        wide=world.WIDE,
        quick=Scale(1300, 1, 125, 2),
        full=Scale(2640, 2, 512, 2),
    )


def first_of_all() -> World:
    """That of 0.1.0: one detector selects and reports."""
    return World(
        first.BASE,
        first.DETECTOR,
        first_scorer.load_scorers,
        first_world.split_captions,
        reports="shapes",
        selects="shapes",
        recipe=Recipe(),
        guidance=5.5,
        wide=first_world.WIDE,
        quick=Scale(360, 5, 100, 3),
        full=Scale(400, 15, 128, 8),
    )


WORLDS: dict[str, Callable[..., World]] = {"sd": stable_diffusion, "flow": flow, "first": first_of_all}
