"""What a noise prompt dataset holds, in figures and as text."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .diagnostics import Overlap, singular_vector_overlap
from .errors import InputError
from .npd import Manifest, NPDReader
from .selection import keep_pair

MARGINS = (0.0, 0.005, 0.01, 0.02)  # table 9
BINS = 10


@dataclass(frozen=True)
class ScoreSummary:
    """One scorer's raw scores of the pairs that have them."""

    pairs: int
    source_mean: float
    target_mean: float
    edges: list[float]  # BINS + 1
    source_counts: list[int]  # pairs per bin
    target_counts: list[int]
    filter_rates: dict[float, float]  # margin → share of pairs that `source + margin < target` drops


@dataclass(frozen=True)
class Summary:
    """A dataset in figures."""

    pairs: int
    prompts: int
    seeds: int  # distinct
    seed_range: tuple[int, int] | None
    parts: int
    bytes: int
    duplicates: int  # pairs that were found once more
    hash: str
    shapes: dict[tuple[int, int, int], int]  # [C, H, W] → pairs, most frequent first
    scores: dict[str, ScoreSummary]
    filter_rate_all: float | None  # at margin 0, every scorer must prefer the target; None without scores
    manifest: Manifest
    recorded: list[dict]  # what writers recorded, without repetition


def summarise(reader: NPDReader, margins: Sequence[float] = MARGINS) -> Summary:
    """All figures of a dataset; reads no noise."""
    records = reader.records
    seeds = {record.key.seed for record in records}
    scored = [record.scores for record in records if record.scores]
    rejected = sum(not keep_pair(*np.array(list(scores.values())).T, 0.0).all() for scores in scored)
    settings = {id(record.settings): record.settings for record in records}  # one object per part
    recorded = []
    for recorded_by_one in (each.recorded for each in settings.values()):
        if recorded_by_one not in recorded:
            recorded.append(recorded_by_one)
    return Summary(
        pairs=len(records),
        prompts=len(reader.prompts),
        seeds=len(seeds),
        seed_range=(min(seeds), max(seeds)) if seeds else None,
        parts=len(reader.parts),
        bytes=sum(part.stat().st_size for part in reader.parts),
        duplicates=reader.duplicates,
        hash=reader.hash,
        shapes=dict(Counter(record.key.shape for record in records).most_common()),
        scores={
            scorer: summarise_scores([r.scores[scorer] for r in records if scorer in r.scores], margins)
            for scorer in reader.scorers
        },
        filter_rate_all=rejected / len(scored) if scored else None,
        manifest=reader.manifest,
        recorded=recorded,
    )


def summarise_scores(scores: Sequence[tuple[float, float]], margins: Sequence[float]) -> ScoreSummary:
    """``scores``: (source's, target's) of every pair, at least one."""
    source, target = np.array(scores, dtype=np.float64).T
    edges = np.histogram_bin_edges(np.concatenate([source, target]), BINS)
    return ScoreSummary(
        pairs=len(scores),
        source_mean=source.mean().item(),
        target_mean=target.mean().item(),
        edges=edges.tolist(),
        source_counts=np.histogram(source, edges)[0].tolist(),
        target_counts=np.histogram(target, edges)[0].tolist(),
        filter_rates={margin: 1 - keep_pair(source, target, margin).mean().item() for margin in margins},
    )


def dataset_overlap(reader: NPDReader, pairs: int = 64) -> tuple[Overlap, Overlap]:
    """:func:`singular_vector_overlap` of source and target, and, to compare, of sources that have nothing in common.

    Over pairs of the most frequent shape, evenly spread.

    Raises:
        InputError: with fewer than two such pairs, and as singular_vector_overlap does.
    """
    shapes = Counter(record.key.shape for record in reader.records).most_common(1)
    same = [i for i, record in enumerate(reader.records) if record.key.shape == shapes[0][0]] if shapes else []
    if len(same) < 2:
        raise InputError(f"{reader.folder} has {len(same)} pairs of one size: collect at least 2.")
    count = min(pairs, len(same))
    source, target = reader.batch([same[k * len(same) // count] for k in range(count)])
    return singular_vector_overlap(source, target), singular_vector_overlap(source, source.roll(1, 0))


def render(summary: Summary) -> str:
    """The figures as text for a terminal."""
    s = summary
    lines = [
        f"pairs       {s.pairs:,} ({s.prompts:,} prompts, {s.seeds:,} seeds)",
        f"on disk     {s.bytes / 1e6:,.1f} MB in {s.parts:,} parts, {s.duplicates:,} pairs found once more",
        f"sha256      {s.hash}",
        f"family      {s.manifest.base_family}",
        f"made with   sigmas {', '.join(f'{sigma:.6g}' for sigma in s.manifest.sigmas)}, cfg {s.manifest.cfg:g}, "
        f"{s.manifest.inversion} inversion at cfg {s.manifest.inversion_cfg:g}, rounds {s.manifest.rounds}"
        + (", cfg told to the network" if s.manifest.guidance == "embedding" else "")
        + (f", re-denoised with {s.manifest.redenoised_with}" if s.manifest.redenoised_with else ""),
        *(f"size        {'x'.join(map(str, shape))}: {count:,} pairs" for shape, count in s.shapes.items()),
        *(f"recorded    {json.dumps(recorded, ensure_ascii=False)}" for recorded in s.recorded),
    ]
    for scorer, score in s.scores.items():
        rates = ", ".join(f"{margin:g}: {rate:.2%}" for margin, rate in score.filter_rates.items())
        lines += [
            "",
            f"{scorer} of {score.pairs:,} pairs",
            f"mean of sources {score.source_mean:.5g}, of targets {score.target_mean:.5g}",
            f"dropped at margin {rates}",
            f"{'score':>23}  {'sources':<30}targets",
        ]
        most = max(score.source_counts + score.target_counts)
        for low, high, *counts in zip(
            score.edges, score.edges[1:], score.source_counts, score.target_counts, strict=False
        ):
            bars = "".join(f"{'█' * math.ceil(20 * count / most):<21}{count:<9,}" for count in counts)
            lines.append(f"{low:>10.4g} … {high:<10.4g}  {bars.rstrip()}")
    if len(s.scores) > 1:
        lines += ["", f"dropped where every scorer must prefer the target: {s.filter_rate_all:.2%}"]
    return "\n".join(lines)


def render_overlap(pairs: Overlap, strangers: Overlap) -> str:
    """Both curves at ten places as text for a terminal."""
    size = len(pairs.left)
    lines = [
        "singular vectors, sorted |cosine|:  source and target    unrelated noises",
        f"{'left':>41}{'right':>8}{'left':>13}{'right':>8}",
    ]
    for k in sorted({round(i * (size - 1) / 10) for i in range(11)}):
        cosines = (pairs.left[k], pairs.right[k], strangers.left[k], strangers.right[k])
        lines.append(f"{k + 1:>10} of {size:<18}" + "{:>9.3f}{:>8.3f}{:>13.3f}{:>8.3f}".format(*cosines))
    return "\n".join(lines)
