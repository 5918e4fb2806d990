"""What it took: cost, the nets themselves, commands and versions."""

from __future__ import annotations

import json

from trainer.evaluation.results import STANDARD, in_order
from trainer.report import verdicts
from trainer.report.entries import settings_of
from trainer.report.formatting import brief, decimals, fixed, signed
from trainer.report.page import Section, block, section, table


def cost(results: dict) -> Section | None:
    """What an image costs, of the rows that :func:`trainer.evaluation.cost.cost_per_image` makes."""
    rows = results["about"].get("cost", [])
    if not rows:
        return None
    parts = []
    for setting in in_order(settings_of(results), (row["setting"] for row in rows)):
        here = [row for row in rows if row["setting"] == setting]
        places = decimals(min(row["seconds"] for row in here) / 10)
        lines = []
        for row in here:
            alike = (STANDARD, row["device"], row["batch"])
            base = [each["seconds"] for each in here if (each["method"], each["device"], each["batch"]) == alike]
            extra = signed(100 * (row["seconds"] / base[0] - 1), 1) if base and row["method"] != STANDARD else "–"
            stages = [fixed(row[f"{stage}_seconds"], places) for stage in ("noise", "sample", "decode")]
            peak = "–" if row["peak_bytes"] is None else fixed(row["peak_bytes"] / 1e9, 2)
            predictions = "–" if row.get("predictions") is None else brief(row["predictions"])  # not counted in 0.1.0
            where = f"{row['method']}, {row['device']}" if len({each["device"] for each in here}) > 1 else row["method"]
            lines.append([where, predictions, fixed(row["seconds"], places), extra, *stages, peak, brief(row["batch"])])
        head = ["method", "predictions", "seconds per image", "more, %"]
        head += ["of these noise", "sampling", "decoding", "peak GB", "batch"]
        parts.append((verdicts.setting_title(results, setting), [table(head, lines)]))
    devices = ", ".join(in_order((), (row["device"] for row in rows)))
    note = (
        f"Medians over the batches in this folder, on {devices}. A prediction is one evaluation of the base model's "
        "network, so guidance takes two; peak memory is that of a whole batch on a GPU."
    )
    return section("Cost", parts, note)


def diagnostics(results: dict) -> Section | None:
    """Figures of the nets that need no sampling: rows are figures, columns nets."""
    nets = {net: figures for net, figures in results["about"].get("diagnostics", {}).items() if figures}
    if not nets:
        return None
    names = in_order((), (name for figures in nets.values() for name in figures))
    rows = [[name, *(brief(figures.get(name)) for figures in nets.values())] for name in names]
    return section("The nets themselves", [("", [table(["", *nets], rows)])])


def provenance(results: dict) -> Section:
    """Commands, versions, models: what it takes to do it again."""
    about = results["about"]
    groups = {
        "Versions": about.get("versions", {}),
        "Methods": about.get("methods", {}),
        "Base model": {"from": about["base_model"]} if about.get("base_model") else {},
        **{f"Net {net}": facts or {} for net, facts in about.get("nets", {}).items()},
    }
    parts = []
    if command := about.get("command"):
        parts.append(("Command", [block("code", command)]))
    for heading, facts in groups.items():
        rows = [
            (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for name, value in facts.items()
        ]
        if rows:
            parts.append((heading, [block("facts", rows)]))
    note = "Every figure of this page stands in results.json, with the names it has here; every score in scores.jsonl."
    return section("How it was made", parts, note)
