"""What people read: the help pages of our nodes, and our nodes in Chinese."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.browser.canvas import open_canvas
from tests.comfyui import ROOT

DOCS = ROOT / "web" / "docs"
OURS = sorted(path.stem for path in DOCS.glob("*.md"))
REPORT = """app.graph.findNodesByType("NPNetHPSFilter")[0].widgets.find(
  widget => widget.name === "npnet_report").element.placeholder"""


def open_help(canvas, node_id: str, page_file: Path) -> None:
    """The button with the question mark over a chosen node shows this page, pictures included."""
    page = canvas.page
    title_bar = page.evaluate(
        """type => {
          app.graph.clear()
          const node = LiteGraph.createNode(type)
          app.graph.add(node)
          node.pos = [100, 100]
          app.canvas.ds.scale = 1
          app.canvas.ds.offset = [800, 300]  // beside the sidebar
          app.canvas.setDirty(true, true)
          const {left, top} = app.canvas.canvas.getBoundingClientRect()
          return [left + 900 + 60, top + 400 - LiteGraph.NODE_TITLE_HEIGHT / 2]
        }""",
        node_id,
    )
    page.wait_for_timeout(500)
    page.mouse.click(*title_bar)
    assert not [problem for problem in canvas.problems() if "not connected" not in problem and "options" not in problem]
    page.get_by_test_id("info-button").click()
    title = page_file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    content = page.locator(".node-help-content")
    content.get_by_role("heading", name=title, exact=True).first.wait_for()
    content.locator("img").first.wait_for()
    page.wait_for_function("() => [...document.querySelectorAll('.node-help-content img')].every(i => i.naturalWidth)")


@pytest.mark.parametrize("node_id", OURS)
def test_help(canvas, node_id):
    open_help(canvas, node_id, DOCS / f"{node_id}.md")
    canvas.screenshot(f"help, {node_id}")


def test_in_chinese(browser, furnished, renderer):
    names = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    with open_canvas(browser, furnished, renderer, "zh") as canvas:
        canvas.open_template("collect_pairs_sdxl")
        canvas.screenshot("collect_pairs_sdxl, Chinese")
        assert canvas.page.evaluate(REPORT) == "运行后在这里显示报告"
        for node_id in OURS:
            title, inputs, outputs = canvas.page.evaluate(
                """type => {
                  const node = LiteGraph.createNode(type)
                  const label = slot => slot.label ?? slot.localized_name ?? slot.name
                  return [node.title, node.inputs.map(label), node.outputs.map(label)]
                }""",
                node_id,
            )
            assert title == names[node_id]["display_name"]
            assert set(inputs) == {entry["name"] for entry in names[node_id]["inputs"].values()}
            assert outputs == [entry["name"] for entry in names[node_id]["outputs"].values()]
        assert [problem for problem in canvas.problems() if "fit" in problem or "needs" in problem] == []
        open_help(canvas, "NPNetNoise", DOCS / "NPNetNoise" / "zh.md")
        canvas.screenshot("help, NPNetNoise, Chinese")
