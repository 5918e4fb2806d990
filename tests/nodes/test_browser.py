"""The pack as people see it: a real browser on a running ComfyUI. What it saw is in build/screenshots."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.nodes.browser import find_browser, open_canvas, start_browser
from tests.nodes.conftest import COMFYUI, COMFYUI_ARGS, PACK, ROOT, make_base
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.server import serve
from tests.nodes.templates import models_of

pytest.importorskip("playwright", reason="Playwright not found: pip install playwright")
pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="Chromium not found: install it, or name it with CHROMIUM"),
    pytest.mark.long,
]
TEMPLATES = sorted((ROOT / "example_workflows").glob("*.json"))
OURS = sorted(path.stem for path in (ROOT / "web" / "docs").glob("*.md"))

each_template = pytest.mark.parametrize("file", TEMPLATES, ids=[file.stem for file in TEMPLATES])


@pytest.fixture(scope="module")
def furnished(pytestconfig, pack):
    """A server on which every file that a template names is there; those that are loaded in a test are tiny ones."""
    with serve(COMFYUI, make_base(pytestconfig), COMFYUI_ARGS) as server:
        models = server.base / "models"
        families = {"hunyuan-dit": "dit", "sdxl": ""}
        tiny = {family: models / "npnet" / save_tiny_npnet(pack, server.base, family) for family in families}
        scorer = models / "preference" / save_tiny_scorer(pack, server.base)
        for file in TEMPLATES:
            for model in models_of(json.loads(file.read_text(encoding="utf-8"))):
                path = models / model["directory"] / model["name"]
                path.parent.mkdir(parents=True, exist_ok=True)
                if model["directory"] == "npnet":
                    shutil.copy(tiny["hunyuan-dit" if "dit" in model["name"] else "sdxl"], path)
                elif model["directory"] == "preference":
                    shutil.copy(scorer, path)
                else:
                    path.touch()
        yield server


@pytest.fixture(scope="module")
def browser(furnished):
    with start_browser(find_browser()) as browser:
        yield browser


@pytest.fixture(scope="module")
def canvas(browser, furnished):
    with open_canvas(browser, furnished) as canvas:
        yield canvas


def open_template(canvas, name: str) -> None:
    """As people do: Browse Templates, this pack, a click on the picture."""
    canvas.command("Comfy.BrowseTemplates")
    page = canvas.page
    page.get_by_text(PACK, exact=True).first.click()
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function("name => document.title.includes(name)", arg=name)
    page.get_by_test_id("template-workflows-content").wait_for(state="hidden")
    canvas.page.wait_for_timeout(300)


def test_template_browser(canvas):
    """Every template has its card, and every card its picture."""
    canvas.command("Comfy.BrowseTemplates")
    canvas.page.get_by_text(PACK, exact=True).first.click()
    for file in TEMPLATES:
        card = canvas.page.get_by_test_id(f"template-workflow-{file.stem}")
        card.scroll_into_view_if_needed()
        card.locator("img").first.wait_for()
        canvas.page.wait_for_function(
            "name => document.querySelector(`[data-testid='template-workflow-${name}'] img`)?.naturalWidth > 100",
            arg=file.stem,
        )
    canvas.screenshot("template browser")
    canvas.page.keyboard.press("Escape")
    canvas.page.get_by_test_id("template-workflows-content").wait_for(state="hidden")


@each_template
def test_template(canvas, file):
    """Opened from the template browser it is whole: no missing node, no red input, nothing cut, nothing overlaps."""
    open_template(canvas, file.stem)
    expected = sorted(node["type"] for node in json.loads(file.read_text(encoding="utf-8"))["nodes"])
    assert canvas.types() == expected
    canvas.screenshot(f"{file.stem}, as it opens")
    assert canvas.problems() == []
    canvas.fit()
    canvas.screenshot(file.stem)
    assert canvas.page.locator(".p-dialog:visible").count() == 0  # no missing nodes, no missing models
    assert not [error for error in canvas.errors if f"/extensions/{PACK}/" in error]


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
    open_template(canvas, "golden_noise_sdxl")
    canvas.page.evaluate(SHRINK)
    canvas.page.get_by_test_id("queue-button").get_by_role("button").first.click()
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
    open_template(canvas, template)
    canvas.page.evaluate(SHRINK)
    assert not any(canvas.page.evaluate(REPORTS, node_id))
    canvas.page.get_by_test_id("queue-button").get_by_role("button").first.click()
    canvas.page.wait_for_function(f"type => ({REPORTS})(type).every(text => text)", arg=node_id)
    canvas.fit()
    canvas.screenshot(f"{template}, run")
    for report in canvas.page.evaluate(REPORTS, node_id):
        assert re.search(r"-?\d+\.\d+", report)
    assert canvas.problems() == []


@pytest.mark.parametrize("node_id", OURS)
def test_help(canvas, node_id):
    """The button with the question mark over a chosen node shows its page, pictures included."""
    page = canvas.page
    page.evaluate(
        """type => {
          app.graph.clear()
          const node = LiteGraph.createNode(type)
          app.graph.add(node)
          node.pos = [100, 100]
          app.canvas.ds.scale = 1
          app.canvas.ds.offset = [800, 300]  // beside the sidebar
          app.canvas.selectNode(node)
          app.canvas.setDirty(true, true)
        }""",
        node_id,
    )
    assert not [problem for problem in canvas.problems() if "not connected" not in problem and "options" not in problem]
    page.get_by_test_id("info-button").click()
    title = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    content = page.locator(".node-help-content")
    content.get_by_role("heading", name=title, exact=True).first.wait_for()
    content.locator("img").first.wait_for()
    page.wait_for_function("() => [...document.querySelectorAll('.node-help-content img')].every(i => i.naturalWidth)")
    canvas.screenshot(f"help, {node_id}")


def test_in_chinese(browser, furnished):
    names = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    with open_canvas(browser, furnished, "zh") as canvas:
        open_template(canvas, "collect_pairs_sdxl")
        canvas.screenshot("collect_pairs_sdxl, Chinese")
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
