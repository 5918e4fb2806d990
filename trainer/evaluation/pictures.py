"""The pictures of a comparison: which there are, and which are made together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from npnet_core.errors import InputError
from trainer.data.images import image_stem, text_hash
from trainer.evaluation.draws import Draw
from trainer.evaluation.methods import Method
from trainer.evaluation.sampling_settings import Setting


@dataclass(frozen=True)
class Picture:
    """One image."""

    draw: Draw
    setting: Setting
    method: Method

    @property
    def image(self) -> str:
        """Its file, relative to the evaluation's folder."""
        stem = image_stem(self.draw.prompt, self.draw.seed)
        if self.method.wrong_prompt:  # which other prompt depends on the set, and sets grow
            stem += f"-{text_hash(self.draw.other)[:8]}"
        return f"images/{self.setting.name}/{self.method.name}/{stem}.png"

    def row(self, metric: str, score: float) -> dict:
        """A line of scores.jsonl."""
        return {
            "setting": self.setting.name,
            "method": self.method.name,
            "metric": metric,
            "prompt": self.draw.prompt,
            "category": self.draw.category,
            "seed": self.draw.seed,
            "score": score,
            "image": self.image,
        }

    def metadata(self) -> dict:
        """What is written into the PNG."""
        metadata = {"prompt": self.draw.prompt, "seed": self.draw.seed, "method": self.method.name}
        metadata |= {"noise": self.method.description}
        if self.method.weights is not None:
            metadata["net_sha256"] = self.method.weights
        if self.method.wrong_prompt:
            metadata["noise_prompt"] = self.draw.other
        return metadata | self.setting.to_dict()


def every_picture(draws: Sequence[Draw], settings: Sequence[Setting], methods: Sequence[Method]) -> list[Picture]:
    """Setting by setting, the methods of a draw side by side.

    Raises:
        InputError: for a control in a set of one prompt.
    """
    if any(method.wrong_prompt for method in methods) and any(d.other == "" for d in draws):
        raise InputError("A wrong-prompt control needs another prompt: give at least 2, or leave it out of --methods.")
    return [Picture(*each) for setting in settings for each in itertools.product(draws, [setting], methods)]


def batches(
    draws: Sequence[Draw], settings: Sequence[Setting], methods: Sequence[Method], size: int
) -> list[list[Picture]]:
    """All pictures, ``size`` draws of one setting and method at a time; those of the same draws follow each other.

    Settings, methods and draws that come later leave whole batches as they were.
    """
    chunks = [draws[i : i + size] for i in range(0, len(draws), size)]
    return [
        [Picture(each, setting, method) for each in chunk]
        for chunk, setting, method in itertools.product(chunks, settings, methods)
    ]
