"""The learning curve of a fit as an SVG picture, from the rows of its log."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.report.charts import ticks
from trainer.report.page import macros

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 720, 190, 64, 150, 34, 30  # pixels of one panel and its margins
PANELS = (
    (
        "share of the target's change explained",
        {"train_explained": "training", "validation_explained": "held-out prompts"},
    ),
    ("weights of the terms", {"alpha": "α (text)", "beta": "β (residual)"}),
    ("prompt dependence", {"prompt_dependence": "held-out prompts"}),
    ("reward, held-out prompts", {"trained_gain": "trained on", "watched_gain": "watched"}),
    ("the same, noise made for another prompt", {"wrong_prompt_gain": "trained on"}),
    ("diversity, as a share of plain noise's", {"diversity": "held-out prompts"}),
)
FLOOR = -0.2  # no share explained is drawn lower: a wild first epoch would flatten all that follows
COLOURS = ("#8da2b8", "#c2410c")

Point = tuple[float, float]


def learning_curve(rows: Sequence[dict]) -> str:
    """SVG with one panel above the other, each over epochs; panels without a figure are left out."""
    last = max((row["epoch"] for row in rows), default=1)
    panels = []
    for title, names in PANELS:
        series = {label: _points(rows, name) for name, label in names.items()}
        if any(series.values()):
            panels.append(_panel(title, series, last, top=PANEL * len(panels)))
    middle, height = (LEFT + WIDTH - RIGHT) / 2, PANEL * len(panels) + 24
    return str(macros("learning_curve.svg").picture(WIDTH, height, middle, panels))


def _points(rows: Sequence[dict], name: str) -> list[Point]:
    floor = FLOOR if name.endswith("explained") else -math.inf
    return [(row["epoch"], max(row[name], floor)) for row in rows if row.get(name) is not None]


def _panel(title: str, series: dict[str, list[Point]], last: float, top: int) -> dict:
    """Where everything of one panel lies, in pixels from its upper left corner."""
    values = [value for points in series.values() for _, value in points]
    heights = ticks(min(values), max(values))

    def x(epoch: float) -> float:
        return round(LEFT + epoch / last * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        up = (value - heights[0]) / (heights[-1] - heights[0])
        return round(PANEL - BOTTOM - up * (PANEL - TOP - BOTTOM), 1)

    lines = [
        {
            "points": [(x(epoch), y(value)) for epoch, value in points],
            "colour": COLOURS[i],
            "label": label,
            "y": TOP + 10 + 18 * i,
        }
        for i, (label, points) in enumerate(series.items())
        if points
    ]
    return {
        "title": title,
        "top": top,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": PANEL - BOTTOM,
        "ys": [(y(tick), f"{tick:.3g}") for tick in heights],
        "xs": [(x(tick), f"{tick:.3g}") for tick in ticks(0, last) if tick <= last],
        "lines": lines,
    }
