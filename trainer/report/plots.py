"""Sections that are charts: the other metrics, pairs of scores, nets against each other."""

from __future__ import annotations

from trainer.evaluation.items import STANDARD, in_order
from trainer.report import labels
from trainer.report.charts import paired_scatter
from trainer.report.comparison import chart, chart_unit, finding, reaches_of
from trainer.report.entries import against, entries_of, methods_of, metrics_of, settings_of
from trainer.report.page import Block, Section, macros, section


def win_rates(results: dict) -> Section | None:
    """Charts of the metrics but the first, which is in the summary."""
    reaches, parts = reaches_of(results, results["methods"]), []
    for setting in settings_of(results):
        drawn = []
        for metric in metrics_of(results)[1:]:
            here = entries_of(results, setting, metric=metric)
            heading = f"{labels.title(results, metric)}, {chart_unit(results, metric)}"
            if here:
                drawn.append(chart(results, here, [each["method"] for each in here], reaches, heading))
        if drawn:
            drawn.append(Block(markdown="The figures are in the table above.\n"))
            parts.append((labels.setting_title(results, setting), drawn))
    note = (
        "Bars start at the line of no difference from standard; thin lines are 95 % intervals. Blue lies above, orange "
        "below, pale is weak evidence, and where grey stands the interval contains no difference. Charts of one kind "
        "have the same axis."
    )
    return section("Other metrics", parts, note) if parts else None


def scatters(results: dict) -> Section | None:
    """Standard against every method, one dot per pair; binary metrics have four places only and are left out."""
    parts = []
    for setting in settings_of(results):
        drawn = []
        for metric in [each for each in metrics_of(results) if not labels.is_binary(results, each)]:
            here = [each for each in results["items"] if each["setting"] == setting and metric in each["scores"]]
            scale = labels.factor(results, metric)
            methods = [each for each in methods_of(results, setting) if here and each in here[0]["scores"][metric]]
            found = {name: [scale * each["scores"][metric][name] for each in here] for name in (STANDARD, *methods)}
            every = [score for values in found.values() for score in values]
            span = (min(every), max(every)) if every else None
            figures = [paired_scatter(found[STANDARD], found[method], method, span) for method in methods]
            if figures:
                drawn.append(Block(macros("charts.html").scatters(labels.label(results, metric), figures)))
        if drawn:
            drawn.append(Block(markdown="See report.html.\n"))
            parts.append((labels.setting_title(results, setting), drawn))
    note = (
        "One dot for each prompt and seed: standard across, the method up. Above the diagonal the method scores higher "
        "(blue), below it lower (orange)."
    )
    return section("Pairs of scores", parts, note) if parts else None


def head_to_head(results: dict) -> Section | None:
    reaches, parts = reaches_of(results, results["pairs"]), []
    for setting in in_order((), (each["setting"] for each in results["pairs"])):
        here = [each for each in results["pairs"] if each["setting"] == setting]
        blocks = []
        for metric in metrics_of(results):
            mine = [each for each in here if each["metric"] == metric]
            heading = f"{labels.title(results, metric)}, {chart_unit(results, metric)}"
            if mine:
                blocks.append(chart(results, mine, list(map(against, mine)), reaches, heading))
        for couple in in_order((), map(against, here)):
            mine = [each for each in here if against(each) == couple]
            blocks.append(finding(results, couple, mine, mine[0]["versus"]))
        parts.append((labels.setting_title(results, setting), blocks))
    return section("Nets against each other", parts, "On the same prompts and seeds.") if parts else None
