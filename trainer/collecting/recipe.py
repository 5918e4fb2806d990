"""How every pair of a dataset is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from trainer.bases import PRESETS, Schedule
from trainer.collecting.redenoising import Redenoising


@dataclass(frozen=True)
class Recipe(Redenoising):
    """How every pair of a run is made: re-denoised, and sampled at the guidance of its way down.

    Args:
        schedule: its first levels are re-denoised between, and both images are sampled on it.
        height, width: of the images in pixels; None for the base model's own.
    """

    schedule: Schedule = Schedule("ddim", 10)
    height: int | None = None
    width: int | None = None

    def __str__(self) -> str:
        spacing = f" of {self.schedule.spacing} spacing" if self.schedule.spacing else ""
        return f"{super().__str__()}, on {self.schedule.steps} {self.schedule.sampler} steps{spacing}"

    def on(self, schedule: Schedule) -> Schedule:
        """The recipe's own, however many steps an image takes."""
        return self.schedule


def preset_recipe(preset: str, **changes) -> Recipe:
    """The recipe of a preset, with ``changes`` that are not None: fields of Recipe and of its Schedule.

    Args:
        preset: of :data:`trainer.bases.PRESETS`.

    Raises:
        InputError: for settings that make no schedule.
    """
    settings = PRESETS[preset]
    values = {"cfg": settings.cfg, "inversion_cfg": settings.inversion_cfg, "depth": settings.depth}
    values |= {name: value for name, value in changes.items() if value is not None}
    schedule = {field.name: values.pop(field.name) for field in dataclasses.fields(Schedule) if field.name in values}
    return Recipe(schedule=dataclasses.replace(settings.schedule, **schedule), **values)
