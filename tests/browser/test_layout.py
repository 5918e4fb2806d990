"""Templates as they open: large enough to read, nothing on anything; and what they queue."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from tests.browser.conftest import TEMPLATES
from tests.nodes.templates import without_meta
from workflows.build import API

each_template = pytest.mark.parametrize("file", TEMPLATES, ids=[file.stem for file in TEMPLATES])

# [what it is, left, top, right, bottom] in the graph's coordinates, of nodes with their titles and of groups. Nodes 2.0
# are elements of the page, which are as large as their content wants.
BOXES = """() => {
  const {scale, offset: [x, y]} = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect()
  const nodes = app.graph._nodes.map(node => {
    const name = `${node.title} ${node.id}`
    const element = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
    if (!element) {
      const [left, top] = node.pos, [width, height] = node.size
      return [name, left, top - LiteGraph.NODE_TITLE_HEIGHT, left + width, top + height]
    }
    const {left, top, right, bottom} = element
    return [name, (left - canvas.left) / scale - x, (top - canvas.top) / scale - y,
      (right - canvas.left) / scale - x, (bottom - canvas.top) / scale - y]
  })
  const groups = app.graph._groups.map(
    ({title, pos: [left, top], size: [width, height]}) => [title, left, top, left + width, top + height])
  return {nodes, groups, elements: document.querySelectorAll("[data-node-id]").length}
}"""


def apart(one: list, other: list) -> bool:
    """To a pixel, which is what rounding makes of the page's coordinates."""
    return one[3] <= other[1] + 1 or other[3] <= one[1] + 1 or one[4] <= other[2] + 1 or other[4] <= one[2] + 1


def inside(one: list, other: list) -> bool:
    return one[1] >= other[1] - 1 and one[2] >= other[2] - 1 and one[3] <= other[3] + 1 and one[4] <= other[4] + 1


@each_template
def test_template_can_be_read(canvas, file):
    """At 70 % at least on a screen of 1600x1000, with its text; nothing lies on anything or sticks out of its group."""
    canvas.open_template(file.stem)
    assert canvas.page.evaluate("app.canvas.ds.scale") >= 0.7
    assert not canvas.page.evaluate("app.canvas.low_quality")
    boxes = canvas.page.evaluate(BOXES)
    assert len(boxes["nodes"]) == len(json.loads(file.read_text(encoding="utf-8"))["nodes"])
    assert boxes["elements"] == (len(boxes["nodes"]) if canvas.renderer == "nodes 2.0" else 0)
    for one, other in [*combinations(boxes["nodes"], 2), *combinations(boxes["groups"], 2)]:
        assert apart(one, other), f"{one} lies on {other}"
    for node in boxes["nodes"]:
        for group in boxes["groups"]:
            assert inside(node, group) or apart(node, group), f"{node} sticks out of {group}"
    # what the page queues, subgraphs and their widgets expanded, is the file for the queue
    prompt = canvas.page.evaluate("async () => (await app.graphToPrompt()).output")
    assert without_meta(prompt) == without_meta(json.loads((API / file.name).read_text(encoding="utf-8")))
