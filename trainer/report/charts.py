"""Charts as inline SVG: intervals around a centre line, pairs of scores. This is where things lie; the markup is in
``templates/charts.html``, colours and type are in ``templates/page.css``."""

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
    """

    name: str
    value: float
    low: float
    high: float
    words: str = ""
    side: str = ""
    faint: bool = False


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


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from at most ``low`` to at least ``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
