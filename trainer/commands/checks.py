"""What several commands refuse of their options."""

from __future__ import annotations

from npnet_core.errors import InputError
from trainer.collecting.keys import seed_range


def check_least_one(options, *names: str) -> None:
    """Raise InputError for an option that is a number below 1."""
    for name in names:
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise InputError(f"--{name} {getattr(options, name)} came: give at least 1.")


def check_seeds(options) -> None:
    """Raise InputError if ``seeds_per_prompt`` cannot be drawn from ``seeds``, the first and the last."""
    if len(options.seeds) != 2 or not 0 < options.seeds_per_prompt <= len(seed_range(options.seeds)):
        raise InputError(
            f"Prompts without seeds make no images: {options.seeds_per_prompt} seeds per prompt from --seeds "
            f"{' '.join(map(str, options.seeds))} came; give the first and the last seed, and ask for 1 or more of "
            "those that lie between them."
        )
