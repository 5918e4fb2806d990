"""The first section: what was compared, what it shows and what not, in words."""

from __future__ import annotations

from trainer.evaluation.baselines import read_baseline
from trainer.evaluation.methods import CONTROL
from trainer.report import conclusions, labels
from trainer.report.comparison import chart, chart_unit, finding, reaches_of
from trainer.report.conclusions import MARKS
from trainer.report.entries import entries_of, methods_of, metrics_of, settings_of
from trainer.report.formatting import count, listed
from trainer.report.page import Block, Section, block, macros, section


def summary(results: dict) -> Section:
    """What was compared, what it shows and what not, in words that follow from the figures."""
    metric = metrics_of(results)[0]
    name, unit = labels.title(results, metric), chart_unit(results, metric)
    introduction = [*conclusions.verdict(results), *results["about"].get("introduction", []), opening(results)]
    parts = [("", [block("paragraph", each) for each in introduction])]
    reaches = reaches_of(results, results["methods"])
    for setting in settings_of(results):
        blocks = []
        if entries := entries_of(results, setting, metric=metric):
            blocks.append(chart(results, entries, [each["method"] for each in entries], reaches, f"{name}, {unit}"))
        for method in methods_of(results, setting):
            more = about_control(results, setting, method, metric)
            blocks.append(finding(results, method, entries_of(results, setting, method), more=more))
        parts.append((labels.setting_title(results, setting), blocks))
    legend = ", ".join(f"{mark} {kind}" for kind, mark in MARKS.items())
    parts[-1][1].append(Block(macros("parts.html").note(f"Marks are for {name}: {legend}.")))
    if words := conclusions.parting(results):
        parts.append(("Who selected, who reports", [block("bullets", words)]))
    parts.append(("What the figures do not show", [block("bullets", conclusions.limits(results))]))
    return section("What this run shows", parts)


def opening(results: dict) -> str:
    """What was compared with what."""
    others = [method for method in results["about"].get("methods", ()) if read_baseline(method) is not None]
    besides = f", and how predictions are spent with {listed(others)}" if others else ""
    return (
        f"Every method drew the same {count(results['prompts'], 'prompt')} from the same seeds, "
        f"{count(results['n'], 'picture')} at a setting; only the noise that a picture starts from differs{besides}. "
        "Each is "
        "compared with the standard picture of its own prompt and seed. The winning rate is the share of these pairs "
        "in which it scores higher, ties counted half: one half is what chance gives."
    )


def about_control(results: dict, setting: str, method: str, metric: str) -> list[str]:
    """What a control says of the method whose control it is."""
    mine = entries_of(results, setting, method, metric)
    own = entries_of(results, setting, method.removeprefix(CONTROL), metric)
    return [conclusions.on_control(results, mine[0], own[0])] if method.startswith(CONTROL) and mine and own else []
