"""The section on diversity: how far apart the pictures of one prompt are."""

from __future__ import annotations

from trainer.evaluation.diversity import KINDS
from trainer.evaluation.items import STANDARD, in_order
from trainer.report import labels
from trainer.report.comparison import Cell
from trainer.report.conclusions import HIGHER, LOWER, MARKS, OPEN
from trainer.report.entries import settings_of
from trainer.report.formatting import brief, decimals, fixed, interval, signed
from trainer.report.page import Section, section, table

SIDES = {HIGHER: "up", OPEN: "open", LOWER: "down"}


def diversity(results: dict) -> Section | None:
    """A table for every setting of what :func:`trainer.evaluation.diversity.diversity` found: methods by kinds."""
    entries = results["about"].get("diversity", [])
    if not entries:
        return None
    kinds = in_order(KINDS, (each["kind"] for each in entries))
    head, parts = ["method", *labels.SPENT, "prompts", *(KINDS[kind] for kind in kinds)], []
    for setting in in_order(settings_of(results), (each["setting"] for each in entries)):
        here = {(each["kind"], each["method"]): each for each in entries if each["setting"] == setting}
        rows = []
        for method in in_order((STANDARD, *results["about"].get("methods", ())), (method for _, method in here)):
            prompts = next(each["prompts"] for (_, name), each in here.items() if name == method)
            spent = labels.spent_cells(results, setting, method)
            rows.append([method, *spent, brief(prompts), *(cell(here, kind, method) for kind in kinds)])
        parts.append((labels.setting_title(results, setting), [table(head, rows)]))
    seeds = " or ".join(brief(each) for each in sorted({each["seeds"] for each in entries}))
    note = (
        f"How far apart the {seeds} pictures of one prompt are: the mean distance over all pairs of them, then over "
        "prompts; under it the change from standard in percent, with its 95 % interval by bootstrap over prompts. "
        "▼ says that a method makes pictures more alike, which no other metric here sees."
    )
    return section("Diversity", parts, note)


def cell(here: dict[tuple[str, str], dict], kind: str, method: str) -> Cell:
    """The mean and, but for standard, the change in percent."""
    entry, standard = here.get((kind, method)), here.get((kind, STANDARD))
    if entry is None:
        return Cell("–")
    mean = fixed(entry["mean"], max(2, decimals((entry["mean_high"] - entry["mean_low"]) / 2)))
    if "difference" not in entry or not standard["mean"]:
        return Cell(mean)
    value, low, high = (100 * entry[f"difference{end}"] / standard["mean"] for end in ("", "_low", "_high"))
    kind = change(entry)
    return Cell(mean, f"{MARKS[kind]} {signed(value, 1)} {interval(low, high, 1)}", SIDES[kind])


def change(entry: dict) -> str:
    """Whether the interval of the difference excludes zero, and on which side it lies."""
    return HIGHER if entry["difference_low"] > 0 else LOWER if entry["difference_high"] < 0 else OPEN
