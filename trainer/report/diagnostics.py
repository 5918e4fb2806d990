"""The section on the nets themselves."""

from __future__ import annotations

from trainer.evaluation.items import in_order
from trainer.report.formatting import brief
from trainer.report.page import Section, section, table


def diagnostics(results: dict) -> Section | None:
    """Figures of the nets that need no sampling: rows are figures, columns nets."""
    nets = {net: figures for net, figures in results["about"].get("diagnostics", {}).items() if figures}
    if not nets:
        return None
    names = in_order((), (name for figures in nets.values() for name in figures))
    rows = [[name, *(brief(figures.get(name)) for figures in nets.values())] for name in names]
    return section("The nets themselves", [("", [table(["", *nets], rows)])])
