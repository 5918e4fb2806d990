"""What nets do to the noises and prompts of an evaluation, in figures that need no sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.adapter import Adapter
from npnet_core.architectures import GoldenNet
from npnet_core.diagnostics import dependence, device_difference, explained, singular_vector_overlap, whiteness
from npnet_core.errors import InputError
from npnet_core.npd import NPDReader
from trainer import bases
from trainer.bases import Base, Prompts
from trainer.evaluation.draws import Draw
from trainer.evaluation.sampling_settings import Setting

VALUES = 2**20  # of noise, 16 of SDXL's: variances are then sure to about 1e-3
BATCH = 16
PAIRS = 128
COMPARED = 2  # noises computed on the CPU too
NO_GPU = "CPU and GPU were not compared: there is no GPU here."


def diagnose(
    base: Base,
    npnets: Mapping[str, GoldenNet],
    draws: Sequence[Draw],
    setting: Setting,
    dataset: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Net → figure → value, over the first draws at the setting's size, as many as hold :data:`VALUES` numbers.

    The figures: how far golden noise depends on the prompt (in a set of several prompts), its variance and whiteness,
    its correlation with the noise it is made of, how far they share their singular vectors, the largest difference
    between CPU and GPU (where there is one), and the share of the change that it explains in a ``dataset``.

    Raises:
        InputError: for a dataset of another kind of base model, or without pairs.
    """
    draws = draws[: math.ceil(VALUES / math.prod(bases.latent_shape(base, setting.height, setting.width)))]
    noise = bases.initial_noise(base, [each.seed for each in draws], setting.height, setting.width)
    prompts = bases.encode(base, [each.prompt for each in draws])
    texts = [each.other for each in draws if each.other]
    others = bases.encode(base, texts) if texts else None
    pairs = read_pairs(base, dataset) if dataset is not None else None
    metrics = {}
    for name, npnet in tqdm(npnets.items(), desc="diagnostics", unit="net", leave=False):
        golden = in_batches(base, npnet, noise, prompts)
        white = whiteness(golden)
        correlation = torch.corrcoef(torch.stack([noise.flatten(), golden.flatten()]))[0, 1]
        found = {}
        if others is not None:
            found["prompt dependence"] = dependence(noise, golden, in_batches(base, npnet, noise, others))
        found |= {
            "variance": white.variance,
            "correlation of neighbours, x": white.lag_x,
            "correlation of neighbours, y": white.lag_y,
            "power, low frequencies": white.low,
            "power, high frequencies": white.high,
            "correlation with the source": correlation.item(),
        }
        if math.isqrt(noise.shape[1]) ** 2 == noise.shape[1]:
            overlap = singular_vector_overlap(noise, golden)
            found["singular vectors shared, left"] = overlap.left.mean().item()
            found["singular vectors shared, right"] = overlap.right.mean().item()
        if base.device.type == "cuda" and not isinstance(npnet, Adapter):  # of which half is the base model
            some = prompts[:COMPARED]
            found["largest difference CPU - GPU"] = device_difference(
                npnet, noise[:COMPARED], some.prompt_embeds, base.device, some.prompt_mask
            )
        if pairs is not None:
            found[f"explained of {dataset.name}"] = explained_of(base, npnet, *pairs)
        metrics[name] = {metric: value for metric, value in found.items() if math.isfinite(value)}
    return metrics


def in_batches(base: Base, npnet: GoldenNet, noise: Tensor, prompts: Prompts) -> Tensor:
    """:func:`trainer.bases.golden`, :data:`BATCH` at a time."""
    starts = range(0, len(noise), BATCH)
    return torch.cat([bases.golden(base, npnet, noise[i : i + BATCH], prompts[i : i + BATCH]) for i in starts])


def read_pairs(base: Base, dataset: Path) -> tuple[list[Tensor], list[Tensor], Prompts]:
    """Sources, targets [1, C, H, W] fp32 and prompts of at most :data:`PAIRS` pairs, evenly spread over a dataset.

    Raises:
        InputError: as :func:`diagnose`.
    """
    reader = NPDReader(dataset)
    if reader.manifest.base_family != base.family:
        raise InputError(
            f"{dataset} was collected with {reader.manifest.base_family} and {base.source} is of family {base.family}: "
            "name a dataset of the same kind of base model."
        )
    if len(reader) == 0:
        raise InputError(f"The dataset {dataset} has no pairs: collect some first.")
    count = min(PAIRS, len(reader))
    chosen = [i * len(reader) // count for i in range(count)]
    sources, targets = zip(*(reader[i] for i in chosen), strict=True)
    prompts = bases.encode(base, [reader.records[i].key.prompt for i in chosen])
    return [x[None].float() for x in sources], [x[None].float() for x in targets], prompts


def explained_of(
    base: Base, npnet: GoldenNet, sources: Sequence[Tensor], targets: Sequence[Tensor], prompts: Prompts
) -> float:
    """:func:`npnet_core.diagnostics.explained` over pairs of any sizes together."""
    golden = [bases.golden(base, npnet, x, prompts[[i]]) for i, x in enumerate(sources)]
    return explained(*(torch.cat([x.flatten() for x in side]) for side in (sources, targets, golden)))
