"""Whether what a dataset holds is what a run that goes on with it would make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.npd import NPDReader, PairKey, source_crc32
from trainer import bases
from trainer.bases import Base
from trainer.collecting.recipe import Recipe


def check_drawn(base: Base, recipe: Recipe, keys: Sequence[PairKey], folder: Path) -> None:
    """Raise InputError unless the dataset holds, for each of these keys of its pairs, the noise that the seed draws.

    Others may be there beside it, and rounding may differ: processors disagree in the last bits of what they draw.
    """
    if not keys:
        return
    reader, stored = NPDReader(folder), {}
    for i, record in enumerate(reader.records):
        stored.setdefault(record.key, []).append(i)
    for key in tqdm(keys, desc="comparing with their seeds", unit="pair", leave=False, delay=1):
        drawn = bases.initial_noise(base, [key.seed], recipe.height, recipe.width)[0]
        checksum = source_crc32(drawn)
        if any(reader.records[i].source_crc32 == checksum for i in stored[key]):
            continue
        if not any(torch.allclose(reader[i][0].float(), drawn, rtol=1e-3, atol=1e-5) for i in stored[key]):
            raise InputError(
                f"{folder} holds another noise for seed {key.seed} of the prompt {key.prompt!r} than that seed draws: "
                "collect into another folder."
            )
