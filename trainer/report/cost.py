"""The section on what an image costs."""

from __future__ import annotations

from trainer.evaluation.items import STANDARD, in_order
from trainer.report import labels
from trainer.report.entries import settings_of
from trainer.report.formatting import brief, decimals, fixed, signed
from trainer.report.page import Section, section, table


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
        parts.append((labels.setting_title(results, setting), [table(head, lines)]))
    devices = ", ".join(in_order((), (row["device"] for row in rows)))
    note = (
        f"Medians over the batches in this folder, on {devices}. A prediction is one evaluation of the base model's "
        "network, so guidance takes two; peak memory is that of a whole batch on a GPU."
    )
    return section("Cost", parts, note)
