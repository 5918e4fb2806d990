"""How ComfyUI stores a prompt. The only file that knows."""

from __future__ import annotations

from torch import Tensor

from ..npnet_core.config import Config
from ..npnet_core.errors import InputError

FAMILY_NAMES = {
    "sdxl": "SDXL",
    "hunyuan-dit": "HunyuanDiT",
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
}
FAMILY_BY_WIDTH = {2048: "sdxl", 768: "sd1", 1024: "sd2"}


def prompt_embeds(conditioning: list, config: Config) -> Tensor:
    """The prompt embedding that belongs to the start of sampling: [B or 1, T, D] for a net of this config.

    Raises:
        InputError: as :func:`starting_entry`, and if the embedding is another family's.
    """
    entry = starting_entry(conditioning)
    embeds, family = entry["cross_attn"], family_of(entry)
    expected = FAMILY_NAMES.get(config.family, config.family)
    if config.family in FAMILY_NAMES and family != config.family:
        came = FAMILY_NAMES.get(family, "another base model's")
        raise InputError(
            f"The conditioning is {came} ({embeds.shape[2]} wide), this NPNet was trained for {expected} "
            f"({config.prompt_dim} wide): use the text encoder of a {expected} checkpoint, or your model's NPNet."
        )
    if embeds.shape[2] != config.prompt_dim:
        raise InputError(
            f"The conditioning is {embeds.shape[2]} wide, this NPNet was trained for {expected} "
            f"({config.prompt_dim} wide): use the text encoder of that base model."
        )
    if family == "hunyuan-dit":
        return embeds[:, : config.prompt_tokens]  # BERT's part is padded to the length of mT5's, not in whole chunks
    return embeds


def base_family(conditioning: list) -> str:
    """The family of the text encoder that made a conditioning; of an unknown one its width, as ``4096 wide``.

    Raises:
        InputError: as :func:`starting_entry`.
    """
    entry = starting_entry(conditioning)
    return family_of(entry) or f"{entry['cross_attn'].shape[2]} wide"


def starting_entry(conditioning: list) -> dict:
    """The one entry of a conditioning that stands for its prompt when sampling starts, embedding under ``cross_attn``.

    Args:
        conditioning: a CONDITIONING, ``[[tensor, options], …]``, or what a guider keeps of it,
            ``[{"cross_attn": tensor, …}, …]``.

    Raises:
        InputError: if it is empty, or nothing of it with an embedding is active at the start.
    """
    entries = [{**c[1], "cross_attn": c[0]} if isinstance(c, (list, tuple)) else c for c in conditioning]
    if not entries:
        raise InputError("The conditioning is empty: connect a prompt that was encoded with CLIP Text Encode.")
    entries = [entry for entry in entries if starts_at(entry) <= 0 < ends_at(entry)]
    if not entries:
        raise InputError(
            "No part of the conditioning is active when sampling starts: let one prompt's timestep range begin at 0."
        )
    # of several prompts the first that covers the whole picture
    entry = next((e for e in entries if e.get("area") is None and e.get("mask") is None), entries[0])
    embeds = entry.get("cross_attn")
    if embeds is None or embeds.ndim != 3 or embeds.numel() == 0:
        raise InputError(
            "The conditioning has no prompt embedding: connect a prompt that was encoded with CLIP Text Encode."
        )
    return entry


def starts_at(entry: dict) -> float:
    """The share of sampling, 0 … 1, at which a conditioning entry begins to act, hooks included."""
    return max(entry.get("start_percent", 0.0), entry.get("clip_start_percent", 0.0))


def ends_at(entry: dict) -> float:
    """The share of sampling, 0 … 1, at which a conditioning entry stops acting, hooks included."""
    return min(entry.get("end_percent", 1.0), entry.get("clip_end_percent", 1.0))


def family_of(entry: dict) -> str | None:
    """The base model family whose text encoder made an entry; None for one that no NPNet family is known for.

    SD 2.x and HunyuanDiT's BERT are both 1024 wide; only the latter has an mT5 embedding beside it. SDXL and AuraFlow
    are both 2048 wide; only the former has a pooled embedding.
    """
    if "conditioning_mt5xl" in entry:
        return "hunyuan-dit"
    family = FAMILY_BY_WIDTH.get(entry["cross_attn"].shape[2])
    return None if family == "sdxl" and entry.get("pooled_output") is None else family
