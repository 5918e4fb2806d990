"""What golden noise has to be measured against: other ways to spend predictions on the same prompt and seed.

Guidance throughout, in another number of steps or on some steps only (Kynkäänniemi et al., arXiv 2404.07724), more
steps, best of N noises.
Guidance 2w - 1 on the first steps: re-denoised with w down and 1 back, a noise has moved by h (w - 1) (D(c) - D(∅)) to
first order in the step h, and a step of guidance w from there goes h w (D(c) - D(∅)) further: together 2w - 1.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from npnet_core.errors import InputError
from trainer import bases
from trainer.bases import Base, Schedule
from trainer.collecting.keys import draw_seeds
from trainer.evaluation.sampling_settings import Setting

# as --methods takes them; cfg-2w-1 is a W too
NAMES = ("cfg-W", "cfg-W-first-K", "cfg-W-steps-N", "steps-N", "best-of-N-SCORER")

_CFG = re.compile(r"cfg-(2w-1|\d+(?:\.\d+)?)(?:-first-(\d+)|-steps-(\d+))?")
_STEPS = re.compile(r"steps-(\d+)")
_BEST = re.compile(r"best-of-(\d+)-(.+)")

CANDIDATES = range(3_000_000_000, 4_000_000_000)  # seeds of further noises to choose from; nothing else draws them


@dataclass(frozen=True)
class Baseline:
    """How a method's sampling differs from the setting's own; by default it does not.

    Attributes:
        cfg: guidance instead of the setting's.
        doubled: guidance 2w - 1, where w is the setting's.
        guided_steps: that guidance on so many first steps only, the setting's on the others.
        steps: of the schedule.
        candidates: noises to choose from, the seed's own among them.
        judge: kind of the preference model that chooses.
    """

    cfg: float | None = None
    doubled: bool = False
    guided_steps: int | None = None
    steps: int | None = None
    candidates: int = 1
    judge: str | None = None

    @property
    def description(self) -> str:
        """One sentence."""
        if self.judge is not None:
            return f"The best of {self.candidates} noises, as {self.judge} scores their images."
        words = ["The seed's own noise"]
        if self.doubled or self.cfg is not None:
            scale = "2w - 1, w being the setting's" if self.doubled else f"{self.cfg:g}"
            words.append(f"guidance {scale}")
        if self.guided_steps is not None:
            words[-1] += f" on the first {self.guided_steps} of the steps"
        if self.steps is not None:
            words.append(f"{self.steps} steps")
        return ", ".join(words) + "."

    def schedule(self, setting: Setting) -> Schedule:
        """The setting's, with this method's number of steps.

        Raises:
            InputError: for a number of steps that its spacing does not have.
        """
        return setting.schedule if self.steps is None else dataclasses.replace(setting.schedule, steps=self.steps)

    def guidance(self, base: Base, setting: Setting) -> float | list[float]:
        """The guidance scale, or one for each prediction of :func:`trainer.bases.evaluations`.

        Raises:
            InputError: for guidance on more first steps than there are.
        """
        cfg = 2 * setting.cfg - 1 if self.doubled else setting.cfg if self.cfg is None else self.cfg
        if self.guided_steps is None:
            return cfg
        schedule = self.schedule(setting)
        if self.guided_steps >= schedule.steps:
            raise InputError(
                f"Guidance on the first {self.guided_steps} of {schedule.steps} steps came: ask for fewer, or for "
                f"cfg-{cfg:g}, guidance on all of them."
            )
        scheduler = base.scheduler(schedule, bases.latent_shape(base, setting.height, setting.width))
        count, guided = len(scheduler.timesteps), self.guided_steps * scheduler.order  # Heun predicts twice a step
        return [cfg] * guided + [setting.cfg] * (count - guided)

    def seeds(self, prompt: str, seed: int) -> list[int]:
        """Of the noises to choose from: the image's own first, then others that follow from it and the prompt."""
        return [seed, *draw_seeds(f"{prompt}\n{seed}", CANDIDATES, self.candidates - 1)]


def read_baseline(name: str) -> Baseline | None:
    """The baseline of that name, or None if it is the name of none.

    Raises:
        InputError: for numbers that make none: guidance or steps of 0, one noise to choose from.
    """
    if match := _CFG.fullmatch(name):
        doubled, first, steps = match[1] == "2w-1", *(number and int(number) for number in match.groups()[1:])
        cfg = None if doubled else float(match[1])
        if 0 not in (cfg, first, steps):
            return Baseline(cfg, doubled, first, steps)
    elif match := _STEPS.fullmatch(name):
        if int(match[1]):
            return Baseline(steps=int(match[1]))
    elif match := _BEST.fullmatch(name):
        if int(match[1]) > 1:
            return Baseline(candidates=int(match[1]), judge=match[2])
    else:
        return None
    raise InputError(f"The method {name} makes no images: give guidance above 0, at least 1 step, at least 2 noises.")
