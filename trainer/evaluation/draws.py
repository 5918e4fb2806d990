"""What all methods of a comparison are compared on: prompts, each with its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from npnet_core.errors import InputError
from trainer.collecting.keys import draw_seeds
from trainer.data.prompts import PromptRow


class Draw(NamedTuple):
    """A prompt with a seed: what all methods are compared on."""

    prompt: str
    category: str | None
    seed: int
    other: str  # the prompt that wrong-prompt controls are told; "" in a set of one


def draw(prompts: Sequence[PromptRow], seeds: range, per_prompt: int) -> list[Draw]:
    """Every prompt with each of its seeds: all prompts with their first, then all with their second, and so on, so that
    asking for more seeds adds to the end.

    Controls are told the prompt that stands half a set further on, counted in a circle: neighbours in a set often are
    of one category and much alike.

    Raises:
        InputError: for no prompt, one twice, or more seeds than there are.
    """
    texts = [row.prompt for row in prompts]
    if not texts:
        raise InputError("No prompt came: give at least one.")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise InputError(f"The prompt {twice!r} came twice: give each once, and more seeds.")
    if not 1 <= per_prompt <= len(seeds):
        raise InputError(f"{per_prompt} seeds per prompt were asked for of {len(seeds)}: ask for 1 or more of those.")
    half = len(texts) // 2
    others = [*texts[half:], *texts[:half]] if half else [""]
    drawn = [draw_seeds(text, seeds, per_prompt) for text in texts]
    return [
        Draw(row.prompt, row.category, mine[k], other)
        for k in range(per_prompt)
        for row, mine, other in zip(prompts, drawn, others, strict=True)
    ]
