"""Whose turn it is to be on the device, where not all parts of a base model fit there."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from npnet_core.errors import InputError
from trainer.bases.base import PARTS, Base, move

log = logging.getLogger(__name__)

ROOM = 0.7  # share of the free memory that weights may take; the rest is for what they compute


def weight_bytes(base: Base) -> dict[str, int]:
    """What the weights of each of :data:`PARTS` take, a sibling's network among them."""
    return {part: sum(_bytes(module) for module in _modules(base, part)) for part in PARTS}


def _modules(base: Base, part: str) -> list[torch.nn.Module]:
    sibling = base.sibling.modules(part) if base.sibling is not None else []
    return list(dict.fromkeys([*base.modules(part), *sibling]))  # which share text encoders and autoencoder


def _bytes(module: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def fit_together(weights: Sequence[int], free: int) -> bool:
    """Whether weights of so many bytes may all stay in so many that are free."""
    return sum(weights) <= ROOM * free


def settle(base: Base, parts: Sequence[str] = tuple(PARTS)) -> Base:
    """Parts of a base model that is on the CPU → its device; where a GPU does not hold them together, none of them, and
    each comes when its turn is.
    """
    if base.device.type == "cuda":
        weights = weight_bytes(base)
        if not fit_together([weights[part] for part in parts], torch.cuda.mem_get_info(base.device)[0]):
            log.info("%s does not hold all of %s: its parts take turns there.", base.device, base.source)
            return dataclasses.replace(base, in_turns=True)
    for part in parts:
        move(base, part, base.device)
    return base


def take_turn(base: Base, *parts: str) -> None:
    """Bring parts to the device together, after the others have left it; nothing where they are there already."""
    if not base.in_turns or all(_place(base, part) == base.device.type for part in parts):
        return
    for other in PARTS:
        if other not in parts:
            move(base, other, "cpu")
    free_memory(base.device)
    with weights_to(base, parts):
        for part in parts:
            move(base, part, base.device)


@contextmanager
def weights_to(base: Base, parts: Sequence[str]) -> Iterator[None]:
    """Within the block, where parts come to the device, running out of its memory is an InputError that says so."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        weights = weight_bytes(base)
        sibling = "" if base.sibling is None or "network" not in parts else f", with {base.sibling.source}'s network"
        raise InputError(
            f"The memory of {base.device} does not hold the {' and '.join(parts)} of {base.source}{sibling} "
            f"({sum(weights[part] for part in parts) / 1e9:.3g} GB): use a GPU with more memory, or a smaller "
            "--precision (fp16, bf16)."
        ) from error


def _place(base: Base, part: str) -> str:
    return next(base.modules(part)[0].parameters()).device.type


def free_memory(device: torch.device) -> None:
    """Give the device's memory back that nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
