"""Charts as inline SVG: intervals around a centre line, pairs of scores, values against costs. This is where things
lie; the markup is in ``templates/charts.html``, colours and type are in ``templates/page.css``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trainer.report.formatting import fixed, percent, signed
from trainer.report.page import macros


@dataclass(frozen=True)
class Bar:
    """A value with its 95 % interval, all three in the chart's own unit.

    Args:
        name: text at the bar's start.
        words: text at its end, in the colour of ``side``.
        faint: whether what the interval says is in doubt.
        note: small text under the name.
    """

    name: str
    value: float
    low: float
    high: float
    words: str = ""
    side: str = ""
    faint: bool = False
    note: str = ""


def win_bars(bars: Sequence[Bar], caption: str = "", reach: float | None = None) -> Markup:
    """Winning rates (0..1) as bars from one half, with intervals and a line at one half.

    Args:
        reach: how far from one half the axis goes, to give several charts the same; None for what these bars need.
    """
    return interval_bars(bars, 0.5, caption, reach=reach, limit=0.5, mark=lambda value: percent(value, 0))


def difference_bars(bars: Sequence[Bar], caption: str = "", reach: float | None = None) -> Markup:
    """Differences in percentage points (1 is a hundred of them) as bars from zero."""
    return interval_bars(bars, 0.0, caption, reach=reach, limit=1.0, mark=lambda value: signed(100 * value, 0))


def reach_of(bars: Sequence[Bar], centre: float) -> float:
    return max((abs(end - centre) for bar in bars for end in (bar.low, bar.high)), default=0.0)


def interval_bars(bars: Sequence[Bar], centre: float, caption: str, *, reach, limit: float, mark) -> Markup:
    """Rows of name, bar and words under one axis. Positions are percentages, so type keeps its size at every width.

    A bar is blue where its whole interval lies above the centre, orange where below, grey where the centre is inside.
    """
    reach = max(reach_of(bars, centre) if reach is None else reach, 0.02)
    offsets = [tick for tick in ticks(-reach, reach) if abs(tick) <= limit + 1e-9]
    end = offsets[-1]

    def across(value: float) -> str:
        return f"{50 + 50 * (value - centre) / end:.2f}%"

    rows = []
    for bar in bars:
        start, stop = sorted((centre, bar.value))
        rows.append(
            {
                "name": bar.name,
                "note": bar.note,
                "side": "up" if bar.low > centre else "down" if bar.high < centre else "open",
                "faint": bar.faint,
                "spoken": f"{bar.name}: {mark(bar.value)}, 95 % interval {mark(bar.low)} to {mark(bar.high)}",
                "start": across(start),
                "width": f"{50 * (stop - start) / end:.2f}%",
                "low": across(bar.low),
                "high": across(bar.high),
                "words": bar.words,
                "words_side": bar.side,
            }
        )
    anchors = {-end: "start", end: "end"}
    marks = [
        {
            "x": across(centre + offset),
            "kind": "grid" if offset else "centre",
            "label": mark(centre + offset),
            "anchor": anchors.get(offset, "middle"),
        }
        for offset in offsets
    ]
    return macros("charts.html").bars(rows, marks, caption)


WIDTH, HEIGHT = 220, 204  # of a scatter, in pixels …
LEFT, TOP, SQUARE = 38, 8, 174  # … and where in it the plot lies


def paired_scatter(
    a: Sequence[float], b: Sequence[float], caption: str = "", span: tuple[float, float] | None = None
) -> Markup:
    """Scores of the same prompts and seeds: a across, b up; above the diagonal b is higher.

    Args:
        span: lowest and highest score of both axes, to give several plots the same; None for those of a and b.
    """
    low, high = span or (min(*a, *b), max(*a, *b))
    pad = 0.04 * (high - low) or abs(high) * 0.04 or 1.0
    low, high = low - pad, high + pad
    scale = SQUARE / (high - low)

    def x(value: float) -> float:
        return round(LEFT + (value - low) * scale, 1)

    def y(value: float) -> float:
        return round(TOP + (high - value) * scale, 1)

    frame = {"left": x(low), "right": x(high), "top": y(high), "bottom": y(low)}
    inside = [tick for tick in ticks(low, high) if low <= tick <= high]
    step = min((after - before for before, after in itertools.pairwise(inside)), default=1.0)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    marks = [{"x": x(tick), "y": y(tick), "label": fixed(tick, places)} for tick in inside]
    pairs = list(zip(a, b, strict=True))
    dots = {
        "open": [(x(p), y(q)) for p, q in pairs if p == q],
        "down": [(x(p), y(q)) for p, q in pairs if q < p],
        "up": [(x(p), y(q)) for p, q in pairs if q > p],
    }
    return macros("charts.html").scatter(WIDTH, HEIGHT, frame, marks, dots, caption)


@dataclass(frozen=True)
class Mark:
    """A method in :func:`cost_chart`.

    Args:
        letter: what stands in it.
        cost: along the axis, above 0.
        value, low, high: up the other, with a 95 % interval.
        side: which way that points, ``up``, ``open`` or ``down``.
        round: whether it is a circle rather than a square.
        name: text for those who do not see it.
    """

    letter: str
    cost: float
    value: float
    low: float
    high: float
    side: str
    round: bool
    name: str


WIDE, TALL = 640, 330  # of a chart of costs, in pixels …
START, END, UP, DOWN = 58, 620, 12, 282  # … and where in it the plot lies
RADIUS = 8  # of a mark


def cost_chart(marks: Sequence[Mark], across: str, up: str) -> Markup:
    """Values against costs, one mark each, a line at zero. The axis of costs is logarithmic where they differ by more
    than three times; marks that would cover each other stand side by side.

    Args:
        across, up: what the axes say.
    """
    costs, ends = [mark.cost for mark in marks], [end for mark in marks for end in (mark.low, mark.high)]
    marked = cost_ticks(min(costs), max(costs))
    below, above = (f(*costs, *marked) for f in (min, max))
    scale = math.log if above > 3 * below else float
    rising = ticks(min(0.0, *ends), max(0.0, *ends))
    places = max(0, -math.floor(math.log10(rising[1] - rising[0]) + 1e-9))

    def x(cost: float) -> float:
        share = (scale(cost) - scale(below)) / ((scale(above) - scale(below)) or 1)
        return round(START + 5 * RADIUS + share * (END - START - 10 * RADIUS), 1)

    def y(value: float) -> float:
        return round(DOWN - (value - rising[0]) / (rising[-1] - rising[0]) * (DOWN - UP), 1)

    drawn = [
        vars(mark)
        | {"x": place, "y": y(mark.value), "top": y(mark.high), "bottom": y(mark.low)}
        | {"interval": mark.low < mark.high}
        for mark, place in zip(marks, side_by_side([x(cost) for cost in costs], 2 * RADIUS + 2), strict=True)
    ]
    frame = {"left": START, "right": END, "top": UP, "bottom": DOWN, "zero": y(0.0)}
    rows = [{"y": y(tick), "label": signed(tick, places)} for tick in rising]
    columns = [{"x": x(tick), "label": fixed(tick, 0 if float(tick).is_integer() else 1)} for tick in marked]
    return macros("charts.html").costs(WIDE, TALL, frame, rows, columns, drawn, RADIUS, across, up)


def cost_ticks(low: float, high: float) -> list[float]:
    """Round numbers on an axis of costs, from at most ``low`` to at least ``high``."""
    if high <= 3 * low:
        return [tick for tick in ticks(low, high) if tick > 0]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first, last = max(step for step in steps if step <= low), min(step for step in steps if step >= high)
    return [step for step in steps if first <= step <= last]


def side_by_side(places: Sequence[float], gap: float) -> list[float]:
    """The places, those nearer to each other than ``gap`` moved apart around their middle; in the same order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    clusters: list[list[int]] = []
    for i in order:
        clusters.append([i])
        while len(clusters) > 1 and _span(places, clusters[-1], gap)[0] - _span(places, clusters[-2], gap)[1] < gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    moved = list(places)
    for cluster in clusters:
        left, _ = _span(places, cluster, gap)
        for k, i in enumerate(cluster):
            moved[i] = round(left + k * gap, 1)
    return moved


def _span(places: Sequence[float], cluster: Sequence[int], gap: float) -> tuple[float, float]:
    """Where a cluster begins and ends once its members stand side by side around their mean."""
    middle, half = sum(places[i] for i in cluster) / len(cluster), (len(cluster) - 1) / 2 * gap
    return middle - half, middle + half


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from at most ``low`` to at least ``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
