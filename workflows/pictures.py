"""Takes the pictures of the templates and of the help pages in a running ComfyUI that has this pack:

    python -m workflows.pictures http://127.0.0.1:8188

Needs `playwright` from PyPI, and Chromium at $CHROMIUM, /usr/bin/chromium by default.
"""

from __future__ import annotations

import io
import os
import sys

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from workflows.build import FOLDER, OURS, TEMPLATES
from workflows.canvas import Layout, canvas_graph, column, node, row

DOCS = FOLDER.parent / "web" / "docs"
MARGIN = 20  # around the graph
NARROW = (250, 0)  # the help is shown in a narrow panel
PANELS = (400, 300)  # left and right, above and below it, where ComfyUI has its panels

SHOW = """async ([graph, offset]) => {
    await app.loadGraphData(graph)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = offset
    app.canvas.draw(true, true)
}"""


def help_of_load() -> Layout:
    npnet = node("NPNetLoad", npnet_name="sdxl.safetensors", color=OURS, box=NARROW)
    users = [
        node(use, npnet=npnet, strength=1.0, long_prompt="truncate", box=NARROW)
        for use in ("NPNetNoise", "NPNetModelPatch")
    ]
    return row(npnet, column(*users))


def help_of_noise() -> Layout:
    npnet = node("NPNetLoad", npnet_name="sdxl.safetensors", box=NARROW)
    source = node("RandomNoise", noise_seed=0, box=NARROW)
    prompt = node("CLIPTextEncode", text="your prompt", title="Prompt", color="green", box=(NARROW[0], 40))
    golden = node(
        "NPNetNoise",
        npnet=npnet,
        noise=source,
        conditioning=prompt,
        strength=1.0,
        long_prompt="truncate",
        color=OURS,
        box=NARROW,
    )
    return row(column(npnet, source, prompt), column(golden, node("SamplerCustomAdvanced", noise=golden, box=NARROW)))


def help_of_model_patch() -> Layout:
    checkpoint = node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors", box=NARROW)
    npnet = node("NPNetLoad", npnet_name="sdxl.safetensors", box=NARROW)
    patched = node(
        "NPNetModelPatch",
        model=checkpoint,
        npnet=npnet,
        strength=1.0,
        long_prompt="truncate",
        color=OURS,
        box=NARROW,
    )
    settings = {"seed": 0, "steps": 30, "cfg": 5.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return row(column(checkpoint, npnet), column(patched, node("KSampler", model=patched, **settings, box=NARROW)))


HELP = {"NPNetLoad": help_of_load, "NPNetNoise": help_of_noise, "NPNetModelPatch": help_of_model_patch}


def picture(page: Page, layout: Layout) -> Image.Image:
    """A layout as ComfyUI draws it."""
    width, height = layout.size
    page.set_viewport_size({"width": width + 2 * PANELS[0], "height": height + 2 * PANELS[1]})
    page.evaluate(SHOW, [canvas_graph("picture", layout), PANELS])
    page.wait_for_timeout(2000)  # drawn when the browser finds the time
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
        for template in TEMPLATES:
            image = picture(page, template())
            image.thumbnail((640, 640), Image.Resampling.LANCZOS)
            image.save(FOLDER / f"{template.__name__}.jpg", quality=85, optimize=True)
        for node_id, layout in HELP.items():
            picture(page, layout()).save(DOCS / f"{node_id}.jpg", quality=85, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
