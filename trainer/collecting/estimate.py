"""How long a dataset will take and how large it will be."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from npnet_core.npd import NPDWriter, PairKey
from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base
from trainer.collecting.batches import batches
from trainer.collecting.collect import collect
from trainer.collecting.manifest import manifest
from trainer.collecting.recipe import Recipe
from trainer.data.embeddings import stored_bytes


def estimate(
    base: Base, scorers: Sequence[Scorer], recipe: Recipe, keys: Sequence[PairKey], *, batch: int, images: bool
) -> str:
    """Time, disk and memory for all pairs, from two batches that are made in a temporary folder; the first warms up.
    And what their prompts take once a fit has encoded them.
    """
    if not keys:
        return "0 pairs: there are more workers than prompts"
    settings = manifest(base, recipe, [scorer.kind for scorer in scorers])
    with tempfile.TemporaryDirectory() as folder:
        for number, chunk in enumerate(itertools.islice(batches(keys, batch), 2)):
            out = Path(folder, str(number))
            start = time.perf_counter()
            with NPDWriter(out, settings, worker="dry-run") as writer:
                collect(base, scorers, recipe, chunk, writer, batch=batch, images=out / "images" if images else None)
            seconds = (time.perf_counter() - start) / len(chunk)
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / len(chunk)
    prompts = list(dict.fromkeys(key.prompt for key in keys))
    return (
        f"{len(keys)} pairs: {tqdm.format_interval(seconds * len(keys))} at {1 / seconds:.3g} pairs per second, "
        f"{size * len(keys) / 1e9:.3g} GB; {len(prompts)} prompts, once encoded for a fit: "
        f"{stored_bytes(base, prompts) / 1e9:.3g} GB; {memory(base)}"
    )


def memory(base: Base) -> str:
    """What the base model's weights take, and on a GPU the most that tensors took in this process."""
    weights = bases.weight_bytes(base)
    named = ", ".join(f"{part} {size / 1e9:.3g}" for part, size in weights.items())
    most = max(weights.values()) if base.in_turns else sum(weights.values())
    how = "one part after the other" if base.in_turns else "all parts"
    text = f"memory: {most / 1e9:.3g} GB of weights, {how} ({named})"
    if base.device.type != "cuda":
        return f"{text}, and what is computed with them"
    return f"{text}, at most {torch.cuda.max_memory_allocated(base.device) / 1e9:.3g} GB in all"
