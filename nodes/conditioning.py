"""How ComfyUI stores a prompt. The only file that knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..npnet_core.config import Config
from ..npnet_core.errors import InputError
from .families import FAMILIES, Base, base_of, family_of, is_another, model_title, title


@dataclass(frozen=True)
class Start:
    """Where sampling starts, which decides what part of a conditioning acts there and for which base model.

    Args:
        base: what is known of the base model.
        sigma: of the first step.
        percent_to_sigma: the model's, share of sampling 0 … 1 → sigma.
    """

    base: Base
    sigma: float
    percent_to_sigma: Callable[[float], float]

    @property
    def size(self) -> tuple[int, ...]:
        """Of the latent in cells: (height, width), or (1, height, width) of a film of one frame; () if not known."""
        return (self.base.shape or ())[2:]


def start_at(model: ModelPatcher, sigmas: Tensor, shape: tuple[int, ...]) -> Start:
    """The start of sampling noise of this shape with a model on a schedule."""
    percent_to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    return Start(base_of(model, shape), float(sigmas[0]), percent_to_sigma)


def at_full_noise(shape: tuple[int, ...] | None = None) -> Start:
    """The start of a whole schedule, of whatever model: only what begins at 0 is active."""
    return Start(Base(shape), 1.0, lambda percent: math.inf if percent <= 0 else 0.0)


def positive_of(conds: dict[str, list]) -> list | None:
    """The positive prompt among a guider's conditionings: ``positive``, else the first key that ends so, else None."""
    return _named("positive", conds)


def negative_of(conds: dict[str, list]) -> list | None:
    """The negative prompt among a guider's conditionings, likewise."""
    return _named("negative", conds)


def _named(end: str, conds: dict[str, list]) -> list | None:
    names = (end, *(name for name in conds if name.endswith(end)))
    return next((conds[name] for name in names if name in conds), None)


def prompt_of(conditioning: list, config: Config, start: Start) -> tuple[Tensor, Tensor | None]:
    """The prompt that belongs to the start of sampling: embedding [B, T, D] for a net of this config, and its mask
    [B, T] bool if it has one.

    Raises:
        InputError: as :func:`starting_entry`, and if the embedding or the model is another family's.
    """
    entry = starting_entry(conditioning, start)
    embeds, expected = without_values(entry["cross_attn"]), title(config.family)
    if config.family in FAMILIES:
        came, fits = family_of(entry, Base()), family_of(entry, start.base) is not None
        # whose prompt it is, the model knows better: Chroma's looks like Qwen-Image 2.1's
        if came != config.family and (fits or not is_another(start.base, config.family)):
            raise InputError(
                f"The conditioning is {title(came)} ({embeds.shape[2]} wide), this NPNet was trained for {expected} "
                f"({config.prompt_dim} wide): use the text encoder of a {expected} checkpoint, or your model's NPNet."
            )
        if not fits:
            raise InputError(
                f"The model is {model_title(start.base)}, this NPNet was trained for {expected}: use a {expected} "
                "checkpoint, or your model's NPNet."
            )
    if embeds.shape[2] != config.prompt_dim:
        raise InputError(
            f"The conditioning is {embeds.shape[2]} wide, this NPNet was trained for {expected} "
            f"({config.prompt_dim} wide): use the text encoder of that base model."
        )
    if config.family == "hunyuan-dit":
        # BERT's part is padded to the length of mT5's, not in whole chunks; its nets have always seen the padding
        return embeds[:, : config.prompt_tokens], None
    mask = entry.get("attention_mask")
    if mask is not None and mask.shape != embeds.shape[:2]:
        mask = None  # of one of several prompts that were joined: ConditioningConcat leaves it as it is
    return embeds, None if mask is None else mask != 0


def without_values(embeds: Tensor) -> Tensor:
    """The keys [B, T, D] of a prompt that NegPip has encoded, [B, 2T, D]; any other prompt as it came.

    Its rows are a key and a value for every token in turn, which differ at most by sign: that of the token's weight.
    """
    keys, values = embeds[:, 0::2], embeds[:, 1::2]
    return keys if keys.any() and torch.equal(keys.abs(), values.abs()) else embeds


def base_family(conditioning: list, start: Start) -> str:
    """The family of a conditioning and of the model it is sampled with; of an unknown one its width, as ``4096 wide``.

    Raises:
        InputError: as :func:`starting_entry`.
    """
    entry = starting_entry(conditioning, start)
    return family_of(entry, start.base) or f"{entry['cross_attn'].shape[2]} wide"


def starting_entry(conditioning: list, start: Start) -> dict:
    """The one entry of a conditioning that stands for its prompt when sampling starts, embedding under ``cross_attn``:
    the first that covers the whole picture, else the first.

    Args:
        conditioning: a CONDITIONING, ``[[tensor, options], …]``, or what a guider keeps of it,
            ``[{"cross_attn": tensor, …}, …]``.

    Raises:
        InputError: if it is empty, a mask or an area is none, or nothing of it with an embedding acts at the start.
    """
    entries = [{**c[1], "cross_attn": c[0]} if isinstance(c, (list, tuple)) else c for c in conditioning]
    if not entries:
        raise InputError("The conditioning is empty: connect a prompt that was encoded with CLIP Text Encode.")
    entries = [entry for entry in entries if is_active(entry, start)]
    if not entries:
        raise InputError(
            "No part of the conditioning is active when sampling starts: let one prompt's timestep range begin at 0."
        )
    if not all(is_placed(entry) for entry in entries):
        raise InputError(
            "A mask of the conditioning is no tensor, or an area no (height, width, y, x): set them with ComfyUI's own "
            "nodes."
        )
    entries = [entry for entry in entries if has_effect(entry)]
    if not entries:
        raise InputError(
            "Every prompt of the conditioning has strength 0 or an empty mask when sampling starts: give one of them a "
            "strength above 0."
        )
    covering = [entry for entry in entries if covers(entry, start.size)]
    entry = min(covering or entries, key=lambda entry: "default" in entry)  # which fills what the others leave
    embeds = entry.get("cross_attn")
    if embeds is None or embeds.ndim != 3 or embeds.numel() == 0:
        raise InputError(
            "The conditioning has no prompt embedding: connect a prompt that was encoded with CLIP Text Encode."
        )
    return entry


def is_active(entry: dict, start: Start) -> bool:
    """Whether the timestep range of an entry, hooks on the text encoder included, holds the first step.

    As ``calculate_start_end_timesteps`` and ``get_area_and_mult`` of comfy/samplers.py.
    """
    begin = max(entry.get("start_percent", 0.0), entry.get("clip_start_percent", 0.0))
    end = min(entry.get("end_percent", 1.0), entry.get("clip_end_percent", 1.0))
    return start.percent_to_sigma(end) <= start.sigma <= start.percent_to_sigma(begin)


def is_placed(entry: dict) -> bool:
    """Whether its mask and area, if any, are what ComfyUI's own nodes give: a tensor, and sides before corner."""
    mask, area = entry.get("mask"), entry.get("area")
    if mask is not None and not isinstance(mask, Tensor):
        return False
    if area is None:
        return True
    if not isinstance(area, (tuple, list)) or not area:
        return False
    numbers = area[1:] if area[0] == "percentage" else area
    return len(numbers) % 2 == 0 and all(isinstance(number, (int, float)) for number in numbers)


def has_effect(entry: dict) -> bool:
    """Whether an entry counts for anything, by its strength and mask."""
    mask = entry.get("mask")
    if mask is not None and (entry.get("mask_strength", 1.0) == 0 or not mask.any()):
        return False
    return entry.get("strength", 1.0) != 0


def covers(entry: dict, size: tuple[int, ...]) -> bool:
    """Whether an entry acts on every cell of a latent of this size, (height, width)."""
    mask, area = entry.get("mask"), entry.get("area")
    if mask is not None and not (mask > 0).all():
        return False
    if area is None:
        return True
    shares = area[0] == "percentage"
    area = area[1:] if shares else area
    sides, corner = area[: len(area) // 2], area[len(area) // 2 :]
    cells = size[-len(sides) :]  # areas may be of the last dimensions only
    if shares:  # rounded as in resolve_areas_and_cond_masks_multidim of comfy/samplers.py
        sides, corner = ([round(a * n) for a, n in zip(part, cells, strict=False)] for part in (sides, corner))
    return not any(corner) and all(side >= n for side, n in zip(sides, cells, strict=False))
