"""Charts as inline SVG: intervals around a centre line, pairs of scores. Colours and type are the page's (page.css)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.report.formatting import fixed, percent, signed
from trainer.report.page import Html, figure, text


@dataclass(frozen=True)
class Bar:
    """A value with its 95 % interval, all three in the chart's own unit.

    Args:
        name: text at the bar's start.
        words: text or markup at its end.
        faint: whether what the interval says is in doubt.
    """

    name: str
    value: float
    low: float
    high: float
    words: object = ""
    faint: bool = False


def win_bars(bars: Sequence[Bar], caption: object = "", reach: float | None = None) -> Html:
    """Winning rates (0..1) as bars from one half, with intervals and a line at one half.

    Args:
        reach: how far from one half the axis goes, to give several charts the same; None for what these bars need.
    """
    return interval_bars(bars, 0.5, caption, reach=reach, limit=0.5, mark=lambda value: percent(value, 0))


def difference_bars(bars: Sequence[Bar], caption: object = "", reach: float | None = None) -> Html:
    """Differences in percentage points (1 is a hundred of them) as bars from zero."""
    return interval_bars(bars, 0.0, caption, reach=reach, limit=1.0, mark=lambda value: signed(100 * value, 0))


def reach_of(bars: Sequence[Bar], centre: float) -> float:
    return max((abs(end - centre) for bar in bars for end in (bar.low, bar.high)), default=0.0)


def interval_bars(bars: Sequence[Bar], centre: float, caption: object, *, reach, limit: float, mark) -> Html:
    """Rows of name, bar and words under one axis. Positions are percentages, so type keeps its size at every width.

    A bar is blue where its whole interval lies above the centre, orange where below, grey where the centre is inside.
    """
    reach = max(reach_of(bars, centre) if reach is None else reach, 0.02)
    offsets = [tick for tick in ticks(-reach, reach) if abs(tick) <= limit + 1e-9]
    end = offsets[-1]

    def across(value: float) -> str:
        return f"{50 + 50 * (value - centre) / end:.2f}%"

    grid = "".join(
        f'<line class="{"centre" if not offset else "grid"}" x1="{across(centre + offset)}" '
        f'x2="{across(centre + offset)}" y1="0" y2="100%"/>'
        for offset in offsets
    )
    rows = []
    for bar in bars:
        start, stop = sorted((centre, bar.value))
        width = f"{50 * (stop - start) / end:.2f}%"
        side = "up" if bar.low > centre else "down" if bar.high < centre else "open"
        spoken = f"{bar.name}: {mark(bar.value)}, 95 % interval {mark(bar.low)} to {mark(bar.high)}"
        rows.append(
            f'<div class="bar {side}{" faint" * bar.faint}"><span class="name">{text(bar.name)}</span>'
            f'<svg width="100%" height="30" role="img" aria-label="{text(spoken)}">{grid}'
            f'<rect x="{across(start)}" y="9" width="{width}" height="12"/>'
            f'<line class="interval" x1="{across(bar.low)}" x2="{across(bar.high)}" y1="15" y2="15"/>'
            + "".join(
                f'<line class="interval" x1="{across(at)}" x2="{across(at)}" y1="10.5" y2="19.5"/>'
                for at in (bar.low, bar.high)
            )
            + f'</svg><span class="words">{text(bar.words)}</span></div>'
        )
    anchors = {-end: "start", end: "end"}
    labels = "".join(
        f'<text x="{across(centre + offset)}" y="13" text-anchor="{anchors.get(offset, "middle")}">'
        f"{mark(centre + offset)}</text>"
        for offset in offsets
    )
    axis = f'<svg width="100%" height="18" aria-hidden="true">{labels}</svg>'
    return figure(f'{"".join(rows)}<div class="bar axis"><span></span>{axis}<span></span></div>', caption, "bars")


WIDTH, HEIGHT = 220, 204  # of a scatter, in pixels …
LEFT, TOP, SQUARE = 38, 8, 174  # … and where in it the plot lies


def paired_scatter(
    a: Sequence[float], b: Sequence[float], caption: object = "", span: tuple[float, float] | None = None
) -> Html:
    """Scores of the same prompts and seeds: a across, b up; above the diagonal b is higher.

    Args:
        span: lowest and highest score of both axes, to give several plots the same; None for those of a and b.
    """
    low, high = span or (min(*a, *b), max(*a, *b))
    pad = 0.04 * (high - low) or abs(high) * 0.04 or 1.0
    low, high = low - pad, high + pad
    scale = SQUARE / (high - low)

    def x(value: float) -> str:
        return f"{LEFT + (value - low) * scale:.1f}"

    def y(value: float) -> str:
        return f"{TOP + (high - value) * scale:.1f}"

    bottom, right = y(low), x(high)
    inside = [tick for tick in ticks(low, high) if low <= tick <= high]
    step = min((after - before for before, after in itertools.pairwise(inside)), default=1.0)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    parts = []
    for tick in inside:
        parts.append(f'<path class="grid" d="M{x(tick)} {bottom}V{y(high)}M{x(low)} {y(tick)}H{right}"/>')
        parts.append(
            f'<text x="{float(x(low)) - 6:.1f}" y="{y(tick)}" dy="3.5" text-anchor="end">{fixed(tick, places)}</text>'
        )
        parts.append(
            f'<text x="{x(tick)}" y="{float(bottom) + 15:.1f}" text-anchor="middle">{fixed(tick, places)}</text>'
        )
    parts.append(f'<path class="centre" d="M{x(low)} {y(low)}L{x(high)} {y(high)}"/>')
    pairs = list(zip(a, b, strict=True))
    for kind, chosen in (
        ("open", [pair for pair in pairs if pair[0] == pair[1]]),
        ("down", [pair for pair in pairs if pair[1] < pair[0]]),
        ("up", [pair for pair in pairs if pair[1] > pair[0]]),
    ):
        if chosen:  # a line of no length with round ends is a dot
            parts.append(f'<path class="dots {kind}" d="{"".join(f"M{x(p)} {y(q)}h0" for p, q in chosen)}"/>')
    drawn = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="paired scores">{"".join(parts)}</svg>'
    return figure(drawn, caption, "scatter")


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from at most ``low`` to at least ``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
