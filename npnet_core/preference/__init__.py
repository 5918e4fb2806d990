"""Preference models: one interface, raw scores per image.

    scorer = load_scorer("hpsv2.1", "models/preference/HPS_v2.1_compressed.pt")
    scorer.score(images, ["a red circle"] * len(images))  # float32 [B]

Scores compare within one kind and one prompt only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import InputError
from .files import ScorerFile, convert_scorer, describe_scorer, find_vocabulary, find_weights, read_scorer
from .kinds import CLIP_WORDS, KINDS, Kind
from .scorer import Scorer

__all__ = ["KINDS", "Scorer", "convert_scorer", "describe_scorer", "load_scorer", "read_scorer"]


def load_scorer(
    kind: str | None,
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    config: dict | None = None,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Scorer:
    """Load a preference model, in eval mode.

    Args:
        kind: one of :data:`KINDS`, or None to find it from the file.
        path: a published file (PyTorch's or safetensors) or a transformers folder; None for what the hub's cache or the
            authors' package has on this machine already. Nothing is downloaded.
        device: where the weights go; they may be moved later.
        config: an open_clip-style config of a file whose sizes are not the published ones.
        tokenizer: a folder with CLIP's vocabulary; None to look beside the weights, then in the hub's cache.
            ImageReward's is always looked for there.
        dtype: of the towers; heads, scalars and the comparison of features stay fp32. ``torch.bfloat16`` halves the
            memory.

    Raises:
        InputError: if weights or vocabulary are missing, damaged or not of that kind.
    """
    if path is None:
        if kind not in KINDS:
            raise InputError(
                f"Neither a file nor a known preference model came ({kind}): name one of {', '.join(KINDS)}."
            )
        path = find_weights(kind)
    file = read_scorer(path, kind, config)
    facts = KINDS[file.kind]
    network = _network(file, dtype).to(device)
    if facts.vocabulary is None:
        return facts.scorer(file.kind, network)
    folder = _words(facts, file.path, None if tokenizer is None else Path(tokenizer))
    return facts.scorer(file.kind, network, facts.tokenizer(folder, file.architecture.text_cfg))


def _network(file: ScorerFile, dtype: torch.dtype) -> nn.Module:
    """Built without memory, then given the file's weights: a copy, so that the file may change."""
    layout = KINDS[file.kind].layout
    with torch.device("meta"):
        network = layout.network(file.architecture)
    state = {}
    for key in network.state_dict():
        stored = layout.stored(key)
        weight = stored.cut(file.tensors[stored.key])
        exact = weight.ndim == 0 or key.startswith("head.")
        state[key] = weight.to(torch.float32 if exact else dtype, copy=True, memory_format=torch.contiguous_format)
    network.load_state_dict(state, assign=True)
    for module in network.modules():  # what is in no file: the positions 0, 1, 2, …
        if getattr(module, "position_ids", None) is not None:
            module.position_ids = torch.arange(module.position_ids.shape[-1])[None]
    return network.requires_grad_(False).eval()


def _words(facts: Kind, weights: Path, tokenizer: Path | None) -> Path:
    """The folder with the vocabulary."""
    if tokenizer is None or facts.vocabulary is not CLIP_WORDS:
        return find_vocabulary(facts.vocabulary, weights)
    if not tokenizer.is_dir():
        raise InputError(f"There is no tokenizer folder {tokenizer}: name one with {facts.vocabulary.title}.")
    return tokenizer
