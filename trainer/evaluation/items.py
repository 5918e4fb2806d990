"""Scores of images → items: what every method made of one prompt and seed at one setting, complete and finite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from npnet_core.errors import InputError, first_of

STANDARD = "standard"
PAIRWISE = ("mps",)  # metrics whose score means something only beside another's of the same prompt


def collect_items(rows: Sequence[dict]) -> list[dict]:
    """Rows → one dict per setting, prompt and seed, in the order of their first appearance.

    Raises:
        InputError: for no rows, a score that is no finite number, or two of one image.
    """
    if not rows:
        raise InputError("There are no scores to report: score at least one image of standard and of a method.")
    wrong = [row for row in rows if not is_finite(row["score"])]
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(rows)} scores are no finite numbers, the first {wrong[0]['score']} in "
            f"{wrong[0]['metric']} for {named(wrong[0])}: look at that image, then remove those lines and score again."
        )
    items: dict[tuple, dict] = {}
    for row in rows:
        key = row["setting"], row["prompt"], row["seed"]
        item = items.setdefault(
            key,
            {
                "setting": row["setting"],
                "prompt": row["prompt"],
                "category": row.get("category"),
                "seed": row["seed"],
                "scores": {},
                "images": {},
            },
        )
        scores = item["scores"].setdefault(row["metric"], {})
        if scores.setdefault(row["method"], float(row["score"])) != row["score"]:
            raise InputError(
                f"Two scores in {row['metric']} came for {named(row)}, {scores[row['method']]:g} and {row['score']:g}: "
                "keep one of the two lines."
            )
        if row.get("image") is not None:
            item["images"][row["method"]] = row["image"]
    return list(items.values())


def check_partners(items: Sequence[dict], settings: Sequence, metrics: Sequence, methods: Sequence) -> None:
    """
    Raises:
        InputError: if in a setting and metric a method lacks images that standard has, or has some that it lacks.
    """
    unpaired = []
    for setting, metric in itertools.product(settings, metrics):
        here = [item for item in items if item["setting"] == setting and metric in item["scores"]]
        scored = {method for item in here for method in item["scores"][metric]} | {STANDARD}
        for item, method in itertools.product(here, in_order((STANDARD, *methods), scored)):
            if method not in item["scores"][metric]:
                unpaired.append(f"{method} has no {metric} score at {setting} for {quoted(item)}")
    if unpaired:
        raise InputError(
            f"{len(unpaired)} images have no partner to be compared with ({first_of(unpaired)}): run the command "
            "again until every method has every prompt and seed, or leave that method's lines out."
        )


def in_order(first: Iterable, rest: Iterable) -> list:
    """What appears in ``rest``, each once: in the order of ``first``, then of appearance."""
    there = dict.fromkeys(rest)
    return [name for name in dict.fromkeys([*first, *there]) if name in there]


def is_finite(score) -> bool:
    return isinstance(score, int | float) and math.isfinite(score)


def named(row: dict) -> str:
    return row.get("image") or f"{row['method']} at {row['setting']}, {quoted(row)}"


def quoted(row: dict) -> str:
    """Prompt and seed of a row or item; long prompts cut."""
    prompt = row["prompt"] if len(row["prompt"]) <= 60 else row["prompt"][:59] + "…"
    return f"{prompt!r} (seed {row['seed']})"


def scores_of(items: Sequence[dict], metric: str, method: str) -> np.ndarray:
    return np.array([item["scores"][metric][method] for item in items])


def paired_scores(items: Sequence[dict], metric: str, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of methods a and b as they are compared: of pairwise metrics the softmax of each pair."""
    first, second = scores_of(items, metric, a), scores_of(items, metric, b)
    if metric in PAIRWISE:
        share = (1 + np.tanh((second - first) / 2)) / 2
        return 1 - share, share
    return first, second
