"""Takes the pictures of the README and of the help pages, in a running ComfyUI that has this pack and a file, if only
an empty one, for every model that a template names:

    python -m workflows.pictures http://127.0.0.1:8188

Needs `playwright` from PyPI, and Chromium at $CHROMIUM, /usr/bin/chromium by default.
"""

from __future__ import annotations

import io
import os
import sys

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from workflows.build import ROOT
from workflows.formats import canvas_graph
from workflows.help import HELP
from workflows.layout import Layout
from workflows.templates import golden_noise_sdxl

DOCS = ROOT / "web" / "docs"
MARGIN = 20  # around the graph
PANELS = (400, 300)  # left and right, above and below it, where ComfyUI has its panels

SHOW = """async ([graph, offset]) => {
    await app.loadGraphData(graph)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = offset
    app.canvas.draw(true, true)
}"""


def picture(page: Page, layout: Layout) -> Image.Image:
    """A layout as ComfyUI draws it."""
    width, height = layout.size
    page.set_viewport_size({"width": width + 2 * PANELS[0], "height": height + 2 * PANELS[1]})
    page.evaluate(SHOW, [canvas_graph("picture", layout), PANELS])
    page.wait_for_timeout(2000)  # drawn when the browser finds the time
    if page.get_by_role("dialog").count():
        raise SystemExit(f"ComfyUI shows a dialog over the graph: {page.get_by_role('dialog').first.inner_text()!r}")
    corner = page.evaluate("app.canvas.canvas.getBoundingClientRect()")
    shot = page.screenshot(
        clip={
            "x": corner["x"] + PANELS[0] - MARGIN,
            "y": corner["y"] + PANELS[1] - MARGIN,
            "width": width + 2 * MARGIN,
            "height": height + 2 * MARGIN,
        }
    )
    return Image.open(io.BytesIO(shot)).convert("RGB")


def main(url: str) -> None:
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.wait_for_function("window.app?.graph && window.app.extensionManager")
        page.wait_for_timeout(2000)
        page.keyboard.press("Escape")  # a new ComfyUI opens with a choice of templates
        picture(page, golden_noise_sdxl()).save(ROOT / "docs" / "golden_noise_sdxl.jpg", quality=85, optimize=True)
        for node_id, layout in HELP.items():
            picture(page, layout()).save(DOCS / f"{node_id}.jpg", quality=85, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
