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
        marks, rows = [], []
        entries = [None, *entries_of(results, setting, metric=metric)]
        ours = golden_methods(about, [each["method"] for each in entries[1:]])
        for entry in entries:
            method = STANDARD if entry is None else entry["method"]
            cost = cost_of(about, setting, method)
            if cost is None:
                continue
            letter = name_of(len(marks))
            gain = "–" if entry is None else labels.gain(results, entry)
            scale = labels.factor(results, metric)
            value, low, high = (0.0 if entry is None else scale * entry[f"difference{end}"] for end in ENDS)
            side = "open" if entry is None else CLASSES[conclusion(results, entry)]
            spoken = f"{method}: {labels.spent(results, setting, method)}, {gain}"
            marks.append(Mark(letter, cost["predictions"], value, low, high, side, method in ours, spoken))
            rows.append([f"{letter} · {method}", *labels.spent_cells(results, setting, method), gain])
        title = labels.title(results, metric)
        unit = f"{title}, mean difference from standard" + (", points" if labels.is_binary(results, metric) else "")
        best = [each for each in results["equal_cost"] if each["setting"] == setting]
        parts.append(
            (
                labels.setting_title(results, setting),
                [
                    Block(cost_chart(marks, "predictions per image", unit)),
                    table(["method", *labels.SPENT, "difference [95 %]"], rows),
                    block("bullets", [conclusions.best_at_equal_cost(results, each) for each in best]),
                ],
            )
        )
    note = (
        "Predictions across, what is gained over standard up, with 95 % intervals by bootstrap over prompts. Circles "
        "are golden noise, squares all else; those of nearly the same cost stand side by side. Blue is higher than "
        "standard, orange lower, grey no difference shown."
    )
    return section("Quality against cost", parts, note) if parts else None


ENDS = ("", "_low", "_high")


def name_of(number: int) -> str:
    """A, B, …, Z, then numbers."""
    return string.ascii_uppercase[number] if number < 26 else str(number + 1)
