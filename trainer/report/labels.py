"""What metrics and settings are called on the page, and by what a metric's scores are multiplied there."""

from __future__ import annotations

from trainer.evaluation.equal_cost import cost_of
from trainer.report.formatting import THIN, brief, count, decimals, fixed, interval, signed


def is_binary(results: dict, metric: str) -> bool:
    return metric in results["binary"]


def factor(results: dict, metric: str) -> float:
    """By which the page multiplies a score; one that is 0 or 1 is shown in percent."""
    if is_binary(results, metric):
        return 100
    return results["about"].get("metrics", {}).get(metric, {}).get("factor", 1)


def label(results: dict, metric: str) -> str:
    """With the factor, for the head of a column."""
    return results["about"].get("metrics", {}).get(metric, {}).get("label", metric)


def title(results: dict, metric: str) -> str:
    """Without the factor, for a sentence."""
    return label(results, metric).removesuffix(f" ×{factor(results, metric):g}")


def digits(results: dict, metric: str) -> int:
    """Decimals of a metric's means everywhere on the page: two digits of the narrowest interval of a difference."""
    if is_binary(results, metric):
        return 1
    entries = [each for each in results["methods"] + results["pairs"] if each["metric"] == metric]
    halves = [(each["difference_high"] - each["difference_low"]) / 2 * factor(results, metric) for each in entries]
    return max(1, decimals(min(filter(None, halves), default=0)))


def setting_title(results: dict, setting: str) -> str:
    """``DDIM, 10 steps, guidance 5.5, 1024×1024``, or the name itself if nothing more is known."""
    facts = results["about"].get("settings", {}).get(setting, {})
    if not {"sampler", "steps", "cfg", "height", "width"} <= facts.keys():
        return setting
    spacing = [f"{facts['spacing']} spacing"] if facts.get("spacing") else []
    size = f"{facts['width']}×{facts['height']}"
    return ", ".join(
        [facts["sampler"].upper(), count(facts["steps"], "step"), *spacing, f"guidance {facts['cfg']:g}", size]
    )


def spent(results: dict, setting: str, method: str) -> str:
    """What an image of a method costs, for a sentence: ``20 predictions, 0.031 s``; "" where it was not counted."""
    predictions, seconds = spent_cells(results, setting, method)
    return "" if predictions == "–" else f"{predictions} prediction{'s' * (predictions != '1')}, {seconds}{THIN}s"


def spent_cells(results: dict, setting: str, method: str) -> tuple[str, str]:
    """The same for a table: predictions and seconds per image."""
    cost = cost_of(results["about"], setting, method)
    if cost is None:
        return "–", "–"
    shortest = min(row["seconds"] for row in results["about"]["cost"] if row["setting"] == setting)
    return brief(cost["predictions"]), fixed(cost["seconds"], decimals(shortest))


SPENT = ("predictions", "seconds")  # heads of these columns


def gain(results: dict, entry: dict, name: str = "difference") -> str:
    """A difference with its interval, as the page scales it: ``+1.70 [0.96, 2.44]``, of a binary metric in points."""
    scale, places = factor(results, entry["metric"]), digits(results, entry["metric"])
    ends = interval(entry[f"{name}_low"], entry[f"{name}_high"], places, scale)
    words = f"{signed(scale * entry[name], places)} {ends}"
    return f"{words} points" if is_binary(results, entry["metric"]) else words
