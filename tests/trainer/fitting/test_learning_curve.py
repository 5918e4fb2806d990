"""The learning curve: what is drawn is what was logged."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.fitting.learning_curve import FLOOR, learning_curve
from trainer.report.charts import ticks

SVG = "{http://www.w3.org/2000/svg}"


def panels(rows: list[dict]) -> dict[str, tuple[list[list[tuple[float, float]]], dict[float, float]]]:
    """Title → (points of each line, height of each labelled value)."""
    found = {}
    for panel in ElementTree.fromstring(learning_curve(rows)).findall(f"{SVG}g"):
        texts = panel.findall(f"{SVG}text")
        heights = {float(t.text): float(t.get("y")) for t in texts if t.get("text-anchor") == "end"}
        lines = [
            [tuple(map(float, point.split(","))) for point in line.get("points").split()]
            for line in panel.findall(f"{SVG}polyline")
        ]
        found[texts[0].text] = lines, heights
    return found


def test_points_lie_where_their_values_are():
    values = [0.01, 0.3, 0.25, 0.71]
    rows = [{"step": i, "epoch": i + 1, "train_explained": value} for i, value in enumerate(values)]
    rows.append({"step": 4, "epoch": 4, "alpha": None, "prompt_dependence": 0.5})
    drawn = panels(rows)
    assert list(drawn) == ["share of the target's change explained", "prompt dependence"]
    ((line,), heights) = drawn["share of the target's change explained"]
    (low, bottom), (high, top) = min(heights.items()), max(heights.items())
    for (x, y), value, epoch in zip(line, values, (1, 2, 3, 4), strict=True):
        assert low + (bottom - y) / (bottom - top) * (high - low) == pytest.approx(value, abs=2e-3)
        assert x - line[0][0] == pytest.approx((epoch - 1) * (line[-1][0] - line[0][0]) / 3, abs=0.2)


def test_a_wild_start_does_not_flatten_the_rest():
    rows = [{"step": i, "epoch": i + 1, "train_explained": value} for i, value in enumerate([-30.0, 0.5])]
    _, heights = panels(rows)["share of the target's change explained"]
    assert min(heights) == FLOOR


def test_an_empty_log_is_a_picture():
    assert panels([]) == {}


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_enclose(low, span):
    high = low + span
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    step = (found[-1] - found[0]) / (len(found) - 1)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3
    assert found[0] <= low + 1e-6 * step + 1e-9
    assert found[-1] >= high - 1e-6 * step - 1e-9
