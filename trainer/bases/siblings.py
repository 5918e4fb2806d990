"""The model that another was distilled from: it re-denoises in the place of one whose guidance is built in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from npnet_core.errors import InputError
from trainer.bases.base import PARTS, Base, fingerprint, move
from trainer.bases.load import PRECISIONS, load_base
from trainer.bases.memory import free_memory, settle


def with_sibling(base: Base, source: str | Path) -> Base:
    """A base model whose noises are re-denoised by another: one with the same latents and text encoders, and guidance.

    Both networks are on the device at once; what else the sibling has, it shares.

    Args:
        source: of the sibling, as for :func:`trainer.bases.load_base`; a folder or hub id.

    Raises:
        InputError: it cannot be loaded, has other latents or text encoders, or its guidance is built in, too.
    """
    precision = next(name for name, dtype in PRECISIONS.items() if dtype == base.dtype)
    sibling = load_base(source, device="cpu", precision=precision)
    if sibling.guidance == "none":
        raise InputError(
            f"{source} has its guidance built in like {base.source}: name the model that they were distilled from "
            "(--redenoise-with)."
        )
    differing = [
        what
        for what, ours, theirs in (
            ("family", base.family, sibling.family),
            ("latent channels", base.channels, sibling.channels),
            ("latent scale", _scale(base), _scale(sibling)),
            ("text encoders", fingerprint(base, ["text"]), fingerprint(sibling, ["text"])),
        )
        if ours != theirs
    ]
    if differing:
        raise InputError(
            f"{source} cannot re-denoise for {base.source}, whose {' and '.join(differing)} it does not have: name the "
            "model that it was distilled from."
        )
    for part in PARTS:
        if part != "network":
            for name in PARTS[part]:
                if hasattr(base.pipe, name):
                    setattr(sibling.pipe, name, getattr(base.pipe, name))
    for part in PARTS:
        move(base, part, "cpu")
    free_memory(base.device)
    both = dataclasses.replace(base, sibling=dataclasses.replace(sibling, device=base.device), in_turns=False)
    return settle(both)


def _scale(base: Base) -> tuple:
    config = base.pipe.vae.config
    return base.pixels, config.scaling_factor, config.get("shift_factor")
