"""The learning curve of a fit as an SVG picture, from the rows of its log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from trainer.report.charts import ticks

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 720, 190, 64, 150, 34, 30  # pixels of one panel and its margins
PANELS = (
    (
        "share of the target's change explained",
        {"train_explained": "training", "validation_explained": "held-out prompts"},
    ),
    ("weights of the terms", {"alpha": "α (text)", "beta": "β (residual)"}),
    ("prompt dependence", {"prompt_dependence": "held-out prompts"}),
)
FLOOR = -0.2  # no share explained is drawn lower: a wild first epoch would flatten all that follows
COLOURS = ("#8da2b8", "#c2410c")

Point = tuple[float, float]


def learning_curve(rows: Sequence[dict]) -> str:
    """SVG with one panel above the other, each over epochs; panels without a figure are left out."""
    panels = []
    for title, names in PANELS:
        series = {label: _points(rows, name) for name, label in names.items()}
        if any(series.values()):
            panels.append((title, series))
    last = max((row["epoch"] for row in rows), default=1)
    drawn = [
        f'<g transform="translate(0 {i * PANEL})">{_panel(title, series, last)}</g>'
        for i, (title, series) in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {PANEL * len(panels) + 24}" '
        f'font-family="sans-serif" font-size="12" fill="#333"><rect width="100%" height="100%" fill="#fff"/>'
        f'{"".join(drawn)}<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{PANEL * len(panels) + 12}" text-anchor="middle">'
        "epoch</text></svg>\n"
    )


def _points(rows: Sequence[dict], name: str) -> list[Point]:
    floor = FLOOR if name.endswith("explained") else -math.inf
    return [(row["epoch"], max(row[name], floor)) for row in rows if row.get(name) is not None]


def _panel(title: str, series: dict[str, list[Point]], last: float) -> str:
    values = [value for points in series.values() for _, value in points]
    heights = ticks(min(values), max(values))

    def place(point: Point) -> str:
        across = LEFT + point[0] / last * (WIDTH - LEFT - RIGHT)
        up = (point[1] - heights[0]) / (heights[-1] - heights[0])
        return f"{across:.1f},{PANEL - BOTTOM - up * (PANEL - TOP - BOTTOM):.1f}"

    parts = [f'<text x="{LEFT}" y="{TOP - 14}" font-weight="bold">{escape(title)}</text>']
    for tick in heights:
        x, y = place((0, tick)).split(",")
        parts.append(f'<path d="M{x} {y}H{WIDTH - RIGHT}" stroke="#e2e2e2"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{tick:.3g}</text>')
    for tick in ticks(0, last):
        if tick <= last:
            x, _ = place((tick, heights[0])).split(",")
            parts.append(f'<text x="{x}" y="{PANEL - BOTTOM + 16}" text-anchor="middle">{tick:.3g}</text>')
    for i, (label, points) in enumerate(series.items()):
        if points:
            line = f'fill="none" stroke="{COLOURS[i]}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"'
            parts.append(f'<polyline points="{" ".join(map(place, points))}" {line}/>')
            parts.append(
                f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 10 + 18 * i}" fill="{COLOURS[i]}">{escape(label)}</text>'
            )
    return "".join(parts)
