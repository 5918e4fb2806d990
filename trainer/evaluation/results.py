"""Scores of images → figures: every method against standard, nets against each other, per prompt category."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from trainer.evaluation.equal_cost import equal_cost
from trainer.evaluation.items import (
    PAIRWISE,
    STANDARD,
    check_partners,
    collect_items,
    in_order,
    paired_scores,
    scores_of,
)
from trainer.evaluation.statistics import compare, holm


def summarise(rows: Iterable[dict], about: dict) -> dict:
    """All figures of a run, JSON types only. Scores are raw: nothing is multiplied by a metric's factor.

    Pairs are images of one setting, prompt and seed; every method of a setting and metric has all of them. Of
    metrics in :data:`trainer.evaluation.items.PAIRWISE` a pair's scores are first turned into the softmax of the two,
    which sum to 1.

    Args:
        rows: dicts of ``setting``, ``method``, ``metric``, ``prompt``, ``category`` (or None), ``seed``, ``score``,
            ``image`` (a path, or None where none was kept).
        about: what else the report shows; ``settings``, ``methods``, ``metrics``, ``nets`` decide order and roles.

    Returns:
        ``about``; ``n`` (prompt, seed) pairs, of ``prompts`` prompts; ``binary``: the metrics whose scores are all 0
        or 1; ``standard``: mean and n per setting and metric; ``methods``: comparisons with standard (``mean`` of the
        method, ``standard`` mean, the fields of :class:`trainer.evaluation.statistics.Comparison`, ``p_holm``);
        ``pairs``: nets, each ``method`` against ``versus``, whose mean is ``versus_mean``; ``categories``: as
        ``methods``, per ``category``;
        ``equal_cost``: of :func:`trainer.evaluation.equal_cost.equal_cost`;
        ``families``: over how many comparisons p was corrected, ``methods`` and ``pairs`` being one family,
        ``categories`` another; ``items``: per setting, prompt and seed, all ``scores`` (metric → method → score) and
        ``images`` (method → path).

    Raises:
        InputError: for no rows; a score that is no finite number (it names the image); two scores of one image that
            differ; images without a partner (it counts and names them).
    """
    rows = list(rows)
    items = collect_items(rows)
    settings = in_order(about.get("settings", ()), (row["setting"] for row in rows))
    metrics = in_order(about.get("metrics", ()), (row["metric"] for row in rows))
    methods = in_order((STANDARD, *about.get("methods", ())), (row["method"] for row in rows))
    check_partners(items, settings, metrics, methods)

    standard, comparisons, pairs, categories = [], [], [], []
    nets = [method for method in methods if method in about.get("nets", {})]
    for setting, metric in tqdm(list(itertools.product(settings, metrics)), desc="intervals", leave=False):
        here = [item for item in items if item["setting"] == setting and metric in item["scores"]]
        if not here:
            continue
        of = {"setting": setting, "metric": metric}
        present = [method for method in methods if method in here[0]["scores"][metric]]
        if metric not in PAIRWISE:
            mean = float(np.mean(scores_of(here, metric, STANDARD)))
            standard.append({**of, "method": STANDARD, "n": len(here), "mean": mean})
        for method in present:
            if method == STANDARD:
                continue
            named = {**of, "method": method}
            comparisons.append(comparison(here, metric, STANDARD, method, named, "standard"))
            for category in in_order((), (item["category"] for item in here if item["category"] is not None)):
                some = [item for item in here if item["category"] == category]
                named_too = {**named, "category": category}
                categories.append(comparison(some, metric, STANDARD, method, named_too, "standard"))
        for first, second in itertools.combinations([net for net in nets if net in present], 2):
            named = {**of, "method": second, "versus": first}
            pairs.append(comparison(here, metric, first, second, named, "versus_mean"))
    for family in (comparisons + pairs, categories):
        for each, p in zip(family, holm([each["p"] for each in family]), strict=True):
            each["p_holm"] = p
    return {
        "about": finite(about),
        "n": len({(item["prompt"], item["seed"]) for item in items}),
        "prompts": len({item["prompt"] for item in items}),
        "binary": [metric for metric in metrics if is_binary(items, metric)],
        "families": {"methods": len(comparisons) + len(pairs), "categories": len(categories)},
        "standard": standard,
        "methods": comparisons,
        "pairs": pairs,
        "categories": categories,
        "equal_cost": equal_cost(about, items, comparisons),
        "items": items,
    }


def write_results(path: Path, results: dict) -> None:
    """``results`` as JSON, figures first, one comparison or item per line."""
    parts = []
    for key, value in results.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(each, ensure_ascii=False, allow_nan=False) for each in value)
            text = f"[\n  {lines}\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def comparison(items: Sequence[dict], metric: str, a: str, b: str, named: dict, a_mean: str) -> dict:
    """b against a: names, n, both means (a's under the name ``a_mean``), and the fields of ``Comparison``."""
    first, second = paired_scores(items, metric, a, b)
    figures = dataclasses.asdict(compare(first, second, [item["prompt"] for item in items]))
    figures = {name: value if isinstance(value, int) else float(value) for name, value in figures.items()}
    means = {"mean": float(second.mean()), a_mean: float(first.mean())}
    return {**named, "n": figures.pop("n"), **means, **figures}


def is_binary(items: Sequence[dict], metric: str) -> bool:
    return all(score in (0, 1) for item in items for score in item["scores"].get(metric, {}).values())


def finite(value):
    """JSON has no NaN: what is not finite becomes None."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
