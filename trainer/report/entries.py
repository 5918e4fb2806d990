"""The comparisons of a run: which settings, metrics and methods there are, in the order that everything is shown in."""

from __future__ import annotations

from trainer.evaluation.items import in_order


def settings_of(results: dict) -> list[str]:
    return in_order((), (each["setting"] for each in results["standard"] + results["methods"]))


def metrics_of(results: dict) -> list[str]:
    named = results["about"].get("metrics", ())
    return in_order(named, (each["metric"] for each in results["standard"] + results["methods"]))


def methods_of(results: dict, setting: str) -> list[str]:
    """Without standard."""
    return in_order((), (each["method"] for each in results["methods"] if each["setting"] == setting))


def entries_of(results: dict, setting: str, method: str | None = None, metric: str | None = None) -> list[dict]:
    return [
        each
        for each in results["methods"]
        if each["setting"] == setting and method in (None, each["method"]) and metric in (None, each["metric"])
    ]


def against(entry: dict) -> str:
    return f"{entry['method']} against {entry['versus']}" if "versus" in entry else entry["method"]
