"""A headless Chromium that looks at a running ComfyUI, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.comfyui import PACK, ROOT
from tests.nodes.server import Server

RENDERERS = ("canvas", "nodes 2.0")
NODES_2 = "Comfy.VueNodes.Enabled"  # the setting
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREENSHOTS = ROOT / "build" / "screenshots"
PATIENCE = 120_000  # milliseconds for whatever is waited for

# Everything that would look wrong on the canvas, as sentences; none is good.
PROBLEMS = """() => {
  const found = [], nodes = app.graph._nodes
  for (const node of nodes) {
    const name = `${node.type} ${node.id}`
    if (!LiteGraph.registered_node_types[node.type]) found.push(`${name} is missing`)
    if (node.has_errors) found.push(`${name} has errors`)
    for (const input of node.inputs ?? []) {
      if (input.link == null && !input.widget && input.shape !== LiteGraph.HollowCircle && input.shape !== 7)
        found.push(`${name}: ${input.name} is not connected`)
    }
    for (const widget of node.widgets ?? []) {
      let options = widget.options?.values
      if (typeof options === "function") options = options(widget, node)
      if (Array.isArray(options) && !options.includes(widget.value))
        found.push(`${name}: ${widget.name} has ${widget.value}, which is not among its options`)
    }
    const [width, height] = node.computeSize()
    if (node.size[0] < width - 1 || node.size[1] < height - 1)
      found.push(`${name} is ${node.size} and its content needs ${width},${height}`)
    for (const slot of [...node.inputs ?? [], ...node.outputs ?? []]) {
      const text = slot.label ?? slot.localized_name ?? slot.name
      if (text.length * 7 > node.size[0]) found.push(`${name}: ${text} does not fit`)
    }
  }
  const box = ({pos: [x, y], size: [width, height]}) => [x, y - LiteGraph.NODE_TITLE_HEIGHT, x + width, y + height]
  nodes.forEach((one, i) => nodes.slice(0, i).forEach(other => {
    const [a, b] = [box(one), box(other)]
    if (a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3])
      found.push(`${one.type} ${one.id} lies on ${other.type} ${other.id}`)
  }))
  for (const [id, link] of app.graph.links)
    if (!app.graph.getNodeById(link.origin_id) || !app.graph.getNodeById(link.target_id)) found.push(`link ${id} hangs`)
  return found
}"""


def find_browser() -> str | None:
    """The path of a Chromium or Chrome: $CHROMIUM, or what is on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True)
class Canvas:
    """ComfyUI in a page. `page` is Playwright's; `errors` collects what its scripts raised, with their stacks."""

    page: object
    errors: list[str]
    renderer: str

    def screenshot(self, name: str) -> None:
        """Keep what can be seen as build/screenshots/<renderer>/<name>.png."""
        folder = SCREENSHOTS / self.renderer
        folder.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(500)  # the canvas is drawn frame by frame
        self.page.screenshot(path=folder / f"{name}.png")

    def command(self, name: str) -> None:
        """What stands in a menu, for example `Comfy.BrowseTemplates`."""
        self.page.evaluate("name => app.extensionManager.command.execute(name)", name)

    def open_template(self, name: str) -> None:
        """As people do: Browse Templates, this pack, a click on the picture."""
        self.page.evaluate("app.graph.clear()")  # a badge of our nodes has the pack's name, too
        self.command("Comfy.BrowseTemplates")
        self.page.get_by_text(PACK, exact=True).first.click()
        self.card(name).click()
        self.page.wait_for_function("name => document.title.includes(name)", arg=name)
        self.page.get_by_test_id("template-workflows-content").wait_for(state="hidden")
        self.page.wait_for_timeout(300)

    def card(self, name: str):
        """A template's card in the template browser, which shows more of them as one scrolls down."""
        cards = self.page.locator("[data-testid^=template-workflow-]")
        cards.first.wait_for()
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        for _ in range(10):
            if card.count():
                break
            cards.last.scroll_into_view_if_needed()
            self.page.wait_for_timeout(300)
        return card

    def run(self) -> None:
        """Press the button Run."""
        own = self.page.get_by_test_id("queue-button")
        self.page.locator("button").and_(own).or_(own.locator("button")).first.click()  # a frame around it, once

    def types(self) -> list[str]:
        """The types of all nodes on the canvas, sorted."""
        return sorted(self.page.evaluate("app.graph._nodes.map(node => node.type)"))

    def problems(self) -> list[str]:
        return self.page.evaluate(PROBLEMS)

    def fit(self) -> None:
        """Zoom so that the whole graph can be seen."""
        self.command("Comfy.Canvas.FitView")
        self.page.wait_for_timeout(600)


@contextmanager
def start_browser(executable: str) -> Iterator:
    """Playwright's browser. While it is open, this thread can run no event loop of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def open_canvas(browser, server: Server, renderer: str, locale: str = "en") -> Iterator[Canvas]:
    """ComfyUI's page, with an empty canvas. Skips a renderer (of RENDERERS) that the frontend does not offer."""
    settings = {NODES_2: renderer == "nodes 2.0", "Comfy.Locale": locale}
    server.post("/settings", {"Comfy.TutorialCompleted": True, **settings})
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
    page.goto(server.url)
    page.wait_for_function("() => window.app?.extensionManager && window.app.graph && window.app.vueAppReady")
    if renderer == "nodes 2.0" and page.evaluate(f"app.ui.settings.settingsParamLookup['{NODES_2}'].type") == "hidden":
        pytest.skip("this frontend has no Nodes 2.0 yet")
    page.evaluate("app.graph.clear()")
    yield Canvas(page, errors, renderer)
    page.close()
