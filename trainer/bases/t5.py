"""T5's prompts for networks that take no mask, as ComfyUI fills them up.

Neither it nor diffusers masks T5's padding: it is read like words, and the words' states depend on how much of it there
is. So prompts of different lengths are encoded and predicted apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.bases.prompts import by_length, concatenated


def encode_by_length(
    tokenizer, prompts: list[str], least: int, encode: Callable[[list[str], int], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What ``encode(prompts, tokens)`` gives for prompts filled up to ``least`` tokens, longer ones as they are, in one
    and with ``prompt_mask``.

    Args:
        tokenizer: T5's.
        encode: → ``prompt_embeds`` [n, T, D] and whatever else, [n, …].
    """
    rows = defaultdict(list)
    for row, ids in enumerate(tokenizer(prompts).input_ids):
        rows[max(least, len(ids))].append(row)
    parts = []
    for tokens, group in rows.items():
        part = encode([prompts[row] for row in group], tokens)
        embeds = part["prompt_embeds"]
        parts.append(part | {"prompt_mask": torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)})
    order = torch.tensor([row for group in rows.values() for row in group]).argsort()
    return {name: value[order.to(value.device)] for name, value in concatenated(parts).items()}


def predict_by_length(
    predict: Callable[[Tensor, dict[str, Tensor]], Tensor], x: Tensor, inputs: dict[str, Tensor]
) -> Tensor:
    """What ``predict(x, inputs)`` gives, [B, …], of rows whose prompts are equally long at once."""
    rows, outputs = [], []
    for group, told in by_length(inputs):
        rows.append(group)
        outputs.append(predict(x[group], told))
    return torch.cat(outputs)[torch.cat(rows).argsort()]
