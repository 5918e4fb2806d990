"""What is best at equal cost: golden noise beside every other way to spend as many predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from trainer.evaluation.baselines import read_baseline
from trainer.evaluation.items import STANDARD, in_order, paired_scores
from trainer.evaluation.methods import CONTROL
from trainer.evaluation.statistics import compare

TOLERANCE = 1.1  # a method costs no more than another if it takes at most so many times its predictions


def cost_of(about: Mapping, setting: str, method: str) -> dict | None:
    """The row of :func:`trainer.evaluation.cost.cost_per_image` of a method at a setting, on the first device that it
    was measured on; None where predictions were not counted."""
    rows = [row for row in about.get("cost", ()) if (row["setting"], row["method"]) == (setting, method)]
    return rows[0] if rows and rows[0].get("predictions") is not None else None


def selecting_metrics(about: Mapping) -> list[str]:
    """The metrics that had a hand in what they now measure: those that chose noises or pairs or that nets were trained
    on, and whatever else ``about["selecting"]`` names. What they show of such a method may be flattery."""
    named = [
        *about.get("selecting", ()),
        *(baseline.judge for name in about.get("methods", ()) if (baseline := read_baseline(name)) is not None),
        *(scorer for facts in about.get("nets", {}).values() for scorer in selected_by(facts)),
    ]
    return in_order(about.get("metrics", ()), [each for each in named if each in about.get("metrics", ())])


def selected_by(net: Mapping | None) -> list[str]:
    """The scorers that chose a net's pairs or that it was trained on, as its file says."""
    named = []
    for entry in ("npnet.selection", "npnet.reward"):
        try:
            scorers = list(json.loads((net or {}).get(entry, "{}")).get("scorers") or ())
        except (AttributeError, TypeError, ValueError):  # files are written by others, too
            continue
        named += [each for each in scorers if each != "none"]
    return named


def reporting_metric(about: Mapping, metrics: Sequence[str]) -> str:
    """The first of the metrics that selected nothing, or else the first."""
    selecting = selecting_metrics(about)
    return next((metric for metric in metrics if metric not in selecting), metrics[0])


def golden_methods(about: Mapping, methods: Sequence[str]) -> list[str]:
    """Those that are ours: nets, and the noise that they learn."""
    return [each for each in methods if each in about.get("nets", {}) or each == "inversion"]


def affordable(about: Mapping, setting: str, metric: str, methods: Sequence[str], predictions: float) -> list[str]:
    """The methods that take no more predictions; no controls, and none that this very metric chose by."""
    there = []
    for method in methods:
        cost, baseline = cost_of(about, setting, method), read_baseline(method)
        chosen_by_it = baseline is not None and baseline.judge == metric
        if method.startswith(CONTROL) or chosen_by_it or cost is None:
            continue
        if cost["predictions"] <= TOLERANCE * predictions:
            there.append(method)
    return there


def equal_cost(about: Mapping, items: Sequence[dict], comparisons: Sequence[dict]) -> list[dict]:
    """The best method at the cost of each golden one, in the metric that reports.

    Args:
        items: of :func:`trainer.evaluation.items.collect_items`.
        comparisons: every method with standard.

    Returns:
        dicts of ``setting``, ``metric``, ``method`` (the golden one), ``predictions`` that it takes, ``among`` (the
        methods that take no more, the highest mean first), ``best`` of them, ``versus`` (the golden one, or the second
        where that is best itself, or None where it is alone), and the mean ``lead`` of the best over that with its 95 %
        interval, ``lead_low`` and ``lead_high``, by bootstrap over prompts.
    """
    entries = []
    for setting in in_order(about.get("settings", ()), (each["setting"] for each in comparisons)):
        here = [each for each in comparisons if each["setting"] == setting]
        metric = reporting_metric(about, in_order(about.get("metrics", ()), (each["metric"] for each in here)))
        gains = {STANDARD: 0.0} | {each["method"]: each["difference"] for each in here if each["metric"] == metric}
        scored = [each for each in items if each["setting"] == setting and metric in each["scores"]]
        for method in golden_methods(about, list(gains)):
            cost = cost_of(about, setting, method)
            if cost is None:
                continue
            predictions = cost["predictions"]
            among = sorted(affordable(about, setting, metric, gains, predictions), key=lambda each: -gains[each])
            best = among[0]
            versus = method if best != method else next(iter(among[1:]), None)
            entry = {"setting": setting, "metric": metric, "method": method, "predictions": predictions}
            entry |= {"among": among, "best": best, "versus": versus}
            entries.append(entry | (lead(scored, metric, versus, best) if versus is not None else {}))
    return entries


def lead(items: Sequence[dict], metric: str, behind: str, ahead: str) -> dict[str, float]:
    """By how much one method scores higher than another, with its interval."""
    a, b = paired_scores(items, metric, behind, ahead)
    found = compare(a, b, [item["prompt"] for item in items])
    return {f"lead{end}": float(getattr(found, f"difference{end}")) for end in ("", "_low", "_high")}
