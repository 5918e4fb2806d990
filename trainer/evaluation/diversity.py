"""Diversity: how far apart are the pictures that one prompt gets from different seeds?

A method may gain by making them alike; a preference model does not see that. The figure of a prompt is the mean
distance over all pairs of its pictures of one setting and method, measured on the pictures as they are on the disk:

    pixels     root mean square of the difference, pixels in 0..1
    latents    the same of the base model's latents, which the autoencoder gives back for a picture
    dino       1 − cosine of DINO features (Eyring et al., arXiv 2508.09968, report their cosine), of a folder that the
               user names

LPIPS would need two files, AlexNet's of torchvision and the heads of the package lpips, which fetches the first itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import bases
from trainer.bases import Base
from trainer.data.images import read_images, text_hash
from trainer.data.jsonl import append_jsonl
from trainer.data.prefetch import prefetch
from trainer.distributed import progress_bar
from trainer.evaluation.items import STANDARD, in_order
from trainer.evaluation.pictures import Picture
from trainer.evaluation.statistics import bootstrap_mean

KINDS = {
    "pixels": "pixels, RMS",
    "latents": "latents, RMS",
    "dino": "DINO features, 1 − cosine",
}
THREADS = 2  # that read PNGs while a network works


@dataclass(frozen=True)
class Measure:
    """A kind of distance.

    Attributes:
        kind: one of :data:`KINDS`.
        embed: pictures [B, H, W, 3] in 0..1 on the CPU → what is compared, [B, …].
        spread: [k, D] → the mean distance over all pairs of rows.
    """

    kind: str
    embed: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]


def rms(x: Tensor) -> Tensor:
    """[k, D] → the root mean square of the difference of two rows, mean over all pairs."""
    return F.pdist(x).mean() / math.sqrt(x.shape[1])


def cosine(x: Tensor) -> Tensor:
    """[k, D] → 1 − cosine of two rows, mean over all pairs."""
    return F.pdist(F.normalize(x)).square().mean() / 2


def measures_of(base: Base) -> list[Measure]:
    """Those that need nothing but the base model, whose autoencoder encodes where it is."""
    return [
        Measure("pixels", lambda images: images, rms),
        Measure("latents", lambda images: bases.encode_images(base, images, batch=len(images)), rms),
    ]


def groups_of(pictures: Iterable[Picture]) -> list[list[Picture]]:
    """The pictures of each setting, method and prompt, where there are several."""
    groups: dict[tuple, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault((picture.setting.name, picture.method.name, picture.draw.prompt), []).append(picture)
    return [group for group in groups.values() if len(group) > 1]


def key(kind: str, group: Sequence[Picture]) -> tuple[str, str]:
    """By which a distance is known: its kind and its pictures."""
    return kind, text_hash("\n".join(picture.image for picture in group))


def known_distances(rows: Iterable[dict]) -> dict[tuple[str, str], float]:
    """Of the lines of diversity.jsonl."""
    return {(row["kind"], row["pictures"]): row["distance"] for row in rows}


@torch.no_grad()
def measure(
    each: Measure,
    groups: Sequence[Sequence[Picture]],
    out: Path,
    path: Path,
    known: dict[tuple[str, str], float],
    batch: int,
) -> None:
    """Measure the groups that have no distance of that kind yet, with a progress bar.

    Args:
        out: the evaluation's folder.
        path: the file of lines to append to.
        known: gets the new ones too.
        batch: pictures to embed at once.
    """
    missing = [group for group in groups if key(each.kind, group) not in known]
    total, left = (sum(map(len, some)) for some in (groups, missing))
    read = prefetch(lambda group: read_images([out / picture.image for picture in group]), missing, THREADS)
    with progress_bar(total, left, "image", f"diversity, {each.kind}") as progress:
        for group, images in zip(missing, read, strict=True):
            embedded = torch.cat([each.embed(chunk).float().cpu() for chunk in images.split(batch)])
            row = {
                "setting": group[0].setting.name,
                "method": group[0].method.name,
                "prompt": group[0].draw.prompt,
                "seeds": len(group),
                "kind": each.kind,
                "pictures": key(each.kind, group)[1],
                "distance": each.spread(embedded.flatten(1)).item(),
            }
            append_jsonl(path, [row])
            known[key(each.kind, group)] = row["distance"]
            progress.update(len(group))


def diversity(groups: Sequence[Sequence[Picture]], known: dict[tuple[str, str], float]) -> list[dict]:
    """Figures of every setting, kind and method that is measured for all its prompts.

    Returns:
        dicts of ``setting``, ``kind``, ``method``, ``prompts``, ``seeds`` (of each), ``mean`` over prompts and, but for
        standard, ``difference`` from standard; each with a 95 % interval (``…_low``, ``…_high``) by bootstrap over
        prompts.
    """
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    seeds: dict[str, int] = {}
    for kind in KINDS:
        for group in groups:
            setting, method, prompt = group[0].setting.name, group[0].method.name, group[0].draw.prompt
            distance = known.get(key(kind, group), math.nan)
            values.setdefault((setting, kind, method), {})[prompt] = distance
            seeds[setting] = len(group)
    whole = {of: row for of, row in values.items() if all(map(math.isfinite, row.values()))}
    entries = []
    for setting in in_order((), (of[0] for of in whole)):
        for (_, kind, method), row in [item for item in whole.items() if item[0][0] == setting]:
            entry = {"setting": setting, "kind": kind, "method": method, "prompts": len(row), "seeds": seeds[setting]}
            entry |= with_interval("mean", np.array(list(row.values())))
            standard = whole.get((setting, kind, STANDARD))
            if method != STANDARD and standard is not None:
                change = np.array([row[prompt] - standard[prompt] for prompt in standard])
                entry |= with_interval("difference", change)
            entries.append(entry)
    return entries


def with_interval(name: str, values: np.ndarray) -> dict[str, float]:
    """The mean of values [n] under that name, and both ends of its interval."""
    low, high = bootstrap_mean(values)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
