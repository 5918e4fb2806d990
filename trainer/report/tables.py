"""Sections that are tables: scores, categories, every comparison."""

from __future__ import annotations

from trainer.evaluation.items import STANDARD, in_order
from trainer.report import labels
from trainer.report.comparison import Cell, rate
from trainer.report.entries import against, entries_of, methods_of, metrics_of, settings_of
from trainer.report.formatting import brief, count, fixed, interval, p_value, percent, signed
from trainer.report.page import Section, section, table


def scores(results: dict) -> Section:
    """A table like the paper's table 2 for every setting: methods by metrics."""
    metrics, fid = metrics_of(results), results["about"].get("fid", {})
    parts = []
    for setting in settings_of(results):
        distances = fid.get(setting, {})
        named = [labels.label(results, metric) for metric in metrics]
        head = ["method", *labels.SPENT, *named, *(["FID ↓"] if distances else [])]
        rows = []
        for method in [STANDARD, *methods_of(results, setting)]:
            row: list[object] = [method, *labels.spent_cells(results, setting, method)]
            for metric in metrics:
                if method == STANDARD:
                    row += [baseline(results, setting, metric)]
                else:
                    row += [rate(results, each) for each in entries_of(results, setting, method, metric)] or [Cell("–")]
            if distances:
                row.append(Cell(fixed(distances[method], 2) if method in distances else "–"))
            rows.append(row)
        parts.append((labels.setting_title(results, setting), [table(head, rows)]))
    notes = [
        "Mean score; under it the winning rate against standard in percent, with its 95 % interval. Predictions are "
        "evaluations of the base model's network for one image, seconds what was measured for it, all included."
    ]
    if results["binary"]:
        names = ", ".join(labels.title(results, metric) for metric in results["binary"])
        notes.append(f"{names} is 0 or 1 for a picture: the share, and under it the difference in points.")
    if fid:
        notes.append(
            f"FID is against {results['about'].get('fid_reference', 'a folder of pictures')}; with few images it is "
            "too high, so compare it within this table only."
        )
    if "mps" in metrics:
        notes.append("MPS compares: the softmax of a pair's two scores, so standard has none of its own.")
    return section("Scores", parts, " ".join(notes))


def baseline(results: dict, setting: str, metric: str) -> Cell:
    """Standard's mean; none of a pairwise metric."""
    means = [each["mean"] for each in results["standard"] if (each["setting"], each["metric"]) == (setting, metric)]
    if not means:
        return Cell("–")
    if labels.is_binary(results, metric):
        return Cell(percent(means[0]))
    return Cell(fixed(labels.factor(results, metric) * means[0], labels.digits(results, metric)))


def by_category(results: dict) -> Section | None:
    if not results["categories"]:
        return None
    metrics, parts = metrics_of(results), []
    for setting in in_order((), (each["setting"] for each in results["categories"])):
        here = [each for each in results["categories"] if each["setting"] == setting]
        head = ["category and method", *labels.SPENT, "pairs", *(labels.label(results, metric) for metric in metrics)]
        rows = []
        for category, method in in_order((), ((each["category"], each["method"]) for each in here)):
            mine = {e["metric"]: e for e in here if (e["category"], e["method"]) == (category, method)}
            cells = [rate(results, mine[metric]) if metric in mine else Cell("–") for metric in metrics]
            spent, pairs = labels.spent_cells(results, setting, method), brief(next(iter(mine.values()))["n"])
            rows.append([f"{category} · {method}", *spent, pairs, *cells])
        parts.append((labels.setting_title(results, setting), [table(head, rows)]))
    note = (
        f"As above, per category of prompts. {count(results['families']['categories'], 'comparison')}, whose p are "
        "corrected together: ▲ and ▼ stand after that. Categories are small, so intervals are wide."
    )
    return section("By category", parts, note)


def comparisons(results: dict) -> Section | None:
    """Every comparison with all its figures."""
    entries = results["methods"] + results["pairs"]
    if not entries:
        return None
    head = [
        "method",
        *labels.SPENT,
        "metric",
        "pairs",
        "ties",
        "won, %",
        "95 %",
        "mean difference",
        "95 %",
        "p",
        "p corrected",
    ]
    parts = []
    for setting in settings_of(results):
        rows = []
        for each in [each for each in entries if each["setting"] == setting]:
            scale, places = labels.factor(results, each["metric"]), labels.digits(results, each["metric"])
            wins, means = (
                interval(each[f"{k}_low"], each[f"{k}_high"], d, f)
                for k, d, f in (("wins", 1, 100), ("difference", places, scale))
            )
            rows.append(
                [
                    against(each),
                    *labels.spent_cells(results, setting, each["method"]),
                    labels.label(results, each["metric"]),
                    brief(each["n"]),
                    brief(each["ties"]),
                    fixed(100 * each["wins"], 1),
                    wins,
                    signed(scale * each["difference"], places),
                    means,
                    p_value(each["p"]),
                    p_value(each["p_holm"]),
                ]
            )
        parts.append((labels.setting_title(results, setting), [table(head, rows)]))
    note = (
        "Winning rate: ties counted half, Wilson's interval. Mean difference: percentile bootstrap over prompts. p: "
        "exact sign test without ties, two-sided. Seeds of one prompt are related: intervals and p of winning rates "
        "are those of as many independent pairs as tell as much. p is corrected after Holm over the "
        f"{count(results['families']['methods'], 'comparison')} of this table."
    )
    return section("All comparisons", parts, note)
