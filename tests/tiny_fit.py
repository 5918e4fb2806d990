"""A dataset that a net can learn and a run that takes seconds, without a base model."""

from __future__ import annotations

from pathlib import Path

import torch

from npnet_core.npd import Manifest, NPDWriter
from trainer.commands.fit import Options, run
from trainer.data.embeddings import store_embeddings

BASE = "a base model"  # named in the dataset, never loaded: the prompt embeddings are there
TOKENS, DIM = 3, 8


def make_dataset(
    folder: Path,
    *,
    base: str = BASE,
    prompts: int = 20,
    seeds: int = 2,
    sizes: tuple[tuple[int, int], ...] = ((8, 8),),
    channels: int = 4,
    tokens: int = TOKENS,
    dim: int = DIM,
) -> Path:
    """Pairs whose target is source + 0.5 · (a shift per channel, from the prompt), with random scores by ``hpsv2``.

    Sizes take turns. The prompt embeddings are random, and the shift is a linear function of them; with another
    ``base`` model they are not used.
    """
    generator = torch.Generator().manual_seed(0)
    texts = [f"prompt {i}" for i in range(prompts)]
    embeds = torch.randn(prompts, tokens, dim, generator=generator)
    shifts = embeds.flatten(1) @ torch.randn(tokens * dim, channels, generator=generator) / (tokens * dim) ** 0.5
    manifest = Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1, {"base_model": base})
    with NPDWriter(folder, manifest, worker="w", pairs_per_part=16) as writer:
        for i, (text, shift) in enumerate(zip(texts, shifts, strict=True)):
            for seed in range(seeds):
                source = torch.randn(channels, *sizes[(i + seed) % len(sizes)], generator=generator)
                scores = tuple(torch.rand(2, generator=generator).tolist())
                target = source + 0.5 * shift[:, None, None]
                writer.add(source, target, prompt=text, seed=seed, scores={"hpsv2": scores})
    store_embeddings(folder, BASE, texts, embeds)
    return folder


def options(dataset: Path, out: Path, **changes) -> Options:
    """A run of 8 steps: 4 epochs of 32 pairs, batches of 16, the smallest Swin."""
    settings = {
        "dataset": dataset,
        "out": out,
        "scorer": ("none",),
        "validation": 0.2,
        "swin_size": 16,
        "swin_dim": 8,
        "swin_depths": (1, 1),
        "swin_heads": (1, 2),
        "swin_window": 2,
        "epochs": 4,
        "batch": 16,
        "lr": 1e-3,
        "log_every": 1,
        "device": "cpu",
    }
    return Options(**settings | changes)


def fit_tiny_npnet(folder: Path) -> Path:
    """The file of a net that ``npnet fit`` made in seconds, for SDXL's prompts (77x2048) and 16x16 latents."""
    data = make_dataset(folder / "pairs", prompts=8, sizes=((16, 16),), tokens=77, dim=2048)
    run(options(data, folder / "run", epochs=3, batch=4))
    return folder / "run" / "npnet.safetensors"
