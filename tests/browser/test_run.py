"""Templates run with tiny models: their pictures and scores are seen, and a picture brings its workflow back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SHRINK = """() => {
  for (const node of app.graph._nodes) for (const widget of node.widgets ?? []) {
    if (widget.name === "width" || widget.name === "height") widget.value = 128
    if (widget.name === "steps") widget.value = 3
  }
  for (const loader of app.graph.findNodesByType("CheckpointLoaderSimple")) {
    const tiny = LiteGraph.createNode("TinyTestModel")
    app.graph.add(tiny)
    tiny.pos = [...loader.pos]
    for (const [slot, output] of loader.outputs.entries())
      for (const id of [...output.links ?? []]) {
        const link = app.graph.links.get(id)
        tiny.connect(slot, app.graph.getNodeById(link.target_id), link.target_slot)
      }
    app.graph.remove(loader)
  }
}"""
DONE = "() => app.graph._nodes.filter(node => node.type === 'SaveImage').every(node => node.imgs?.length)"


@pytest.fixture(scope="module")
def picture(canvas, furnished) -> Path:
    """A template is run with tiny models: the file of a picture that it saved."""
    canvas.open_template("golden_noise_sdxl")
    canvas.page.evaluate(SHRINK)
    canvas.run()
    canvas.page.wait_for_function(DONE)
    canvas.fit()
    canvas.screenshot("golden_noise_sdxl, run")
    assert not canvas.page.evaluate("app.lastNodeErrors && Object.keys(app.lastNodeErrors).length")
    return next((furnished.base / "output" / "npnet").glob("golden*.png"))


def test_both_pictures_are_seen(canvas, picture, furnished):
    names = sorted(path.name for path in (furnished.base / "output" / "npnet").glob("*.png"))
    assert [name.partition("_")[0] for name in names] == ["golden", "ordinary"]
    shown = "app.graph._nodes.filter(n => n.type === 'SaveImage').map(n => n.imgs[0].naturalWidth)"
    assert canvas.page.evaluate(shown) == [128, 128]


def test_a_saved_picture_brings_its_workflow_back(canvas, picture):
    before = canvas.types()
    canvas.page.evaluate("app.graph.clear()")
    assert canvas.types() == []
    canvas.page.locator("#comfy-file-input").set_input_files(picture)
    canvas.page.wait_for_function("count => app.graph._nodes.length === count", arg=len(before))
    assert canvas.types() == before
    assert canvas.problems() == []
    canvas.screenshot("reloaded from a picture")


def test_a_dropped_picture_brings_its_workflow_back(canvas, picture):
    before = canvas.types()
    canvas.page.evaluate("app.graph.clear()")
    content = list(picture.read_bytes())
    canvas.page.evaluate(
        """([content, name]) => {
          const data = new DataTransfer()
          data.items.add(new File([new Uint8Array(content)], name, {type: "image/png"}))
          const at = {bubbles: true, cancelable: true, clientX: 800, clientY: 500, dataTransfer: data}
          for (const kind of ["dragenter", "dragover", "drop"])
            document.getElementById("graph-canvas").dispatchEvent(new DragEvent(kind, at))
        }""",
        [content, picture.name],
    )
    canvas.page.wait_for_function("count => app.graph._nodes.length === count", arg=len(before))
    assert canvas.types() == before


REPORTS = """type => app.graph.findNodesByType(type).map(
  node => node.widgets.find(widget => widget.name === "npnet_report").value)"""


@pytest.mark.parametrize(
    ("template", "node_id"), [("golden_noise_vs_redenoise", "NPNetHPSFilter"), ("pick_best_of_n", "NPNetPickBest")]
)
def test_scores_are_seen_on_the_node(canvas, template, node_id):
    canvas.open_template(template)
    canvas.page.evaluate(SHRINK)
    assert not any(canvas.page.evaluate(REPORTS, node_id))
    canvas.run()
    canvas.page.wait_for_function(f"type => ({REPORTS})(type).every(text => text)", arg=node_id)
    canvas.fit()
    canvas.screenshot(f"{template}, run")
    for report in canvas.page.evaluate(REPORTS, node_id):
        assert re.search(r"-?\d+\.\d+", report)
    assert canvas.problems() == []
