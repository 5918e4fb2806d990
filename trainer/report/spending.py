"""The section that sets what methods gain against what they cost."""

from __future__ import annotations

import string

from trainer.evaluation.equal_cost import cost_of, golden_methods, reporting_metric
from trainer.evaluation.items import STANDARD
from trainer.report import conclusions, labels
from trainer.report.charts import Mark, cost_chart
from trainer.report.comparison import CLASSES
from trainer.report.conclusions import conclusion
from trainer.report.entries import entries_of, metrics_of, settings_of
from trainer.report.page import Block, Section, block, section, table


def spending(results: dict) -> Section | None:
    """A chart for every setting, the table that says which mark is whose, and what is best at the cost of each net."""
    about, parts = results["about"], []
    for setting in settings_of(results):
        metrics = [each for each in metrics_of(results) if entries_of(results, setting, metric=each)]
        if not metrics or cost_of(about, setting, STANDARD) is None:
            continue
        metric = reporting_metric(about, metrics)
        entries = {STANDARD: None} | {each["method"]: each for each in entries_of(results, setting, metric=metric)}
        counted = [method for method in entries if cost_of(about, setting, method) is not None]
        ours, marks, rows = golden_methods(about, counted), [], []
        for number, method in enumerate(counted):
            gain = "–" if method == STANDARD else labels.gain(results, entries[method])
            marks.append(mark(results, setting, metric, method, entries[method], letter_of(number), method in ours))
            rows.append([f"{marks[-1].letter} · {method}", *labels.spent_cells(results, setting, method), gain])
        points = ", points" if labels.is_binary(results, metric) else ""
        unit = f"{labels.title(results, metric)}, mean difference from standard{points}"
        best = [each for each in results["equal_cost"] if each["setting"] == setting]
        blocks = [
            Block(cost_chart(marks, "predictions per image", unit)),
            table(["method", *labels.SPENT, "difference [95 %]"], rows),
            block("bullets", [conclusions.best_at_equal_cost(results, each) for each in best]),
        ]
        parts.append((labels.setting_title(results, setting), blocks))
    note = (
        "Predictions across, what is gained over standard up, with 95 % intervals by bootstrap over prompts. Circles "
        "are golden noise, squares all else; those of nearly the same cost stand side by side. Blue is higher than "
        "standard, orange lower, grey no difference shown. The best of several is found by the same pictures that its "
        "lead is measured on, so that leads are a little too large."
    )
    return section("Quality against cost", parts, note) if parts else None


def mark(results: dict, setting: str, metric: str, method: str, entry: dict | None, letter: str, golden: bool) -> Mark:
    """Of a method whose comparison with standard that entry is; None for standard itself."""
    cost, spent = cost_of(results["about"], setting, method), labels.spent(results, setting, method)
    if entry is None:
        return Mark(letter, cost["predictions"], 0.0, 0.0, 0.0, "open", golden, f"{method}: {spent}")
    scale = labels.factor(results, metric)
    value, low, high = (scale * entry[f"difference{end}"] for end in ("", "_low", "_high"))
    spoken = f"{method}: {spent}, {labels.gain(results, entry)}"
    return Mark(letter, cost["predictions"], value, low, high, CLASSES[conclusion(results, entry)], golden, spoken)


def letter_of(number: int) -> str:
    """A, B, …, Z, then numbers."""
    return string.ascii_uppercase[number] if number < 26 else str(number + 1)
