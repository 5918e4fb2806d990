"""How images are sampled: schedule, guidance and size, all in one value with a name."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from npnet_core.errors import InputError
from trainer import bases
from trainer.bases import Base, Schedule

OWN = "own"  # the spacing that the base model's scheduler has


@dataclass(frozen=True)
class Setting:
    """How an image is sampled.

    Args:
        schedule: sampler, steps and spacing.
        cfg: guidance scale; 1 is the conditional prediction alone.
        height, width: of the image in pixels.
    """

    schedule: Schedule
    cfg: float
    height: int
    width: int

    @property
    def name(self) -> str:
        """Readable, different for every setting, and good for a folder: ``ddim-10-cfg5.5-1024x1024`` (width first)."""
        parts = [self.schedule.sampler, str(self.schedule.steps), self.schedule.spacing, f"cfg{self.cfg:g}"]
        return "-".join([*filter(None, parts), f"{self.width}x{self.height}"])

    def to_dict(self) -> dict:
        """``sampler``, ``steps``, ``spacing``, ``cfg``, ``height``, ``width``; JSON types."""
        return dataclasses.asdict(self.schedule) | {"cfg": self.cfg, "height": self.height, "width": self.width}


def every_setting(
    base: Base,
    *,
    samplers: Sequence[str],
    steps: Sequence[int],
    spacings: Sequence[str],
    cfgs: Sequence[float],
    sizes: Sequence[str] = (),
) -> list[Setting]:
    """All combinations, each once.

    Args:
        base: decides the size if none is given.
        spacings: as in :class:`trainer.bases.Schedule`, and :data:`OWN` for the base model's.
        sizes: ``WIDTHxHEIGHT`` in pixels.

    Raises:
        InputError: for a combination that the base model or a sampler cannot do, guidance of a model that has its own
            built in, or a size that is none.
    """
    schedules = [
        Schedule(sampler, count, None if spacing == OWN else spacing)
        for sampler, count, spacing in itertools.product(samplers, steps, spacings)
    ]
    for schedule in schedules:
        bases.evaluations(base, schedule)  # makes a scheduler of it
    for cfg in cfgs:
        bases.check_guidance(base, cfg)
    pixels = [read_size(size) for size in sizes] or [(base.size, base.size)]
    for height, width in pixels:
        bases.latent_shape(base, height, width)
    combinations = itertools.product(schedules, cfgs, pixels)
    return list(dict.fromkeys(Setting(schedule, cfg, *size) for schedule, cfg, size in combinations))


def read_size(size: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` → (height, width).

    Raises:
        InputError: for anything else.
    """
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise InputError(f"The size {size} came: give WIDTHxHEIGHT in pixels, such as 1024x1024.")
    return int(height), int(width)
