"""One comparison, as it is shown: a cell of a table, a bar of a chart, a sentence with a mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluation.items import STANDARD
from trainer.report import conclusions, labels
from trainer.report.charts import Bar, difference_bars, reach_of, win_bars
from trainer.report.conclusions import HIGHER, LOWER, MARKS, OPEN, PERHAPS_HIGHER, PERHAPS_LOWER, conclusion
from trainer.report.formatting import fixed, interval, percent, signed
from trainer.report.page import Block, block, macros

CLASSES = {HIGHER: "up", PERHAPS_HIGHER: "up", OPEN: "open", PERHAPS_LOWER: "down", LOWER: "down"}


@dataclass(frozen=True)
class Cell:
    """A figure, what it is worth beside standard, and which way that points (a CSS class)."""

    value: str
    versus: str = ""
    side: str = ""


def rate(results: dict, entry: dict) -> Cell:
    """A comparison as a cell: the mean, and the winning rate with its interval; of a binary metric, the difference."""
    kind = conclusion(results, entry)
    if labels.is_binary(results, entry["metric"]):
        low, high = entry["difference_low"], entry["difference_high"]
        mean, versus = percent(entry["mean"]), f"{signed(100 * entry['difference'], 1)} {interval(low, high, 1, 100)}"
    else:
        scale, places = labels.factor(results, entry["metric"]), labels.digits(results, entry["metric"])
        mean = fixed(scale * entry["mean"], places)
        versus = f"{percent(entry['wins'])} {interval(entry['wins_low'], entry['wins_high'], 1, 100)}"
    return Cell(mean, f"{MARKS[kind]} {versus}", CLASSES[kind])


def finding(
    results: dict, name: str, entries: Sequence[dict], versus: str = STANDARD, more: Sequence[str] = ()
) -> Block:
    """The comparisons of one method in words: a mark for the first, a sentence, and the figures in small type."""
    kind, words = conclusion(results, entries[0]), conclusions.headline(results, entries, versus)
    details = [*(conclusions.detail(results, each) for each in entries), *more]
    spent = labels.spent(results, entries[0]["setting"], entries[0]["method"])
    return block("finding", name, kind, MARKS[kind], CLASSES[kind], words, details, spent)


def bar(results: dict, entry: dict, name: str = "") -> Bar:
    """A comparison as a bar: of the winning rate, or of the difference if the metric is binary."""
    kind = "difference" if labels.is_binary(results, entry["metric"]) else "wins"
    cell = rate(results, entry)
    return Bar(
        name,
        entry[kind],
        round(entry[f"{kind}_low"], 3),  # as conclusion() rounds
        round(entry[f"{kind}_high"], 3),
        cell.versus,
        cell.side,
        faint=conclusion(results, entry) in (PERHAPS_HIGHER, PERHAPS_LOWER),
        note=labels.spent(results, entry["setting"], entry["method"]),
    )


def chart(
    results: dict, entries: Sequence[dict], names: Sequence[str], reaches: dict[bool, float], heading: str
) -> Block:
    """Comparisons in one metric, as bars under a heading."""
    binary = labels.is_binary(results, entries[0]["metric"])
    bars = [bar(results, entry, name) for entry, name in zip(entries, names, strict=True)]
    drawn = (difference_bars if binary else win_bars)(bars, reach=reaches[binary])
    return Block(macros("charts.html").headed(heading, drawn))


def chart_unit(results: dict, metric: str) -> str:
    return "difference in percentage points" if labels.is_binary(results, metric) else "winning rate"


def reaches_of(results: dict, entries: Sequence[dict]) -> dict[bool, float]:
    """How far the axes go that all charts of one kind share: binary metrics or not."""
    return {
        binary: reach_of(
            [bar(results, each) for each in entries if labels.is_binary(results, each["metric"]) == binary],
            0.0 if binary else 0.5,
        )
        for binary in (False, True)
    }
