"""The pack as people see it: a real browser on a running ComfyUI. What it saw is in build/screenshots.

    def test_template(canvas):            # once in each renderer, see canvas.Canvas
        canvas.open_template("golden_noise_sdxl")
        assert canvas.problems() == []

ComfyUI is found as tests.comfyui says, and runs in a process of its own: one for each file of tests and renderer,
with its own settings and an empty cache. Another frontend than its own:
`COMFYUI_ARGS="--cpu --front-end-root <folder with its index.html>"`.
"""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

from tests.browser.canvas import RENDERERS, find_browser, open_canvas, start_browser
from tests.comfyui import COMFYUI, COMFYUI_ARGS, NOT_FOUND, ROOT, make_base
from tests.nodes.modules import Modules
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.server import serve
from tests.nodes.templates import models_of, own_nets

TEMPLATES = sorted((ROOT / "example_workflows").glob("*.json"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == ROOT / "tests" / "browser":
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module", params=RENDERERS)
def renderer(request) -> str:
    """How nodes are drawn: on the canvas, or as elements of the page (Nodes 2.0)."""
    return request.param


@pytest.fixture(scope="module")
def furnished(pytestconfig, renderer):
    """A server on which every file that a template names is there; those that are loaded in a test are tiny ones."""
    if COMFYUI is None:
        pytest.skip(NOT_FOUND)
    pack = SimpleNamespace(npnet_core=Modules("npnet_core"))  # only to write files; ComfyUI has its own
    with serve(COMFYUI, make_base(pytestconfig), COMFYUI_ARGS) as server:
        models = server.base / "models"
        families = {"hunyuan-dit": "dit", "sdxl": ""}
        tiny = {family: models / "npnet" / save_tiny_npnet(pack, server.base, family) for family in families}
        scorer = models / "preference" / save_tiny_scorer(pack, server.base)
        for file in TEMPLATES:
            workflow = json.loads(file.read_text(encoding="utf-8"))
            for name in own_nets(workflow):
                shutil.copy(tiny["sdxl"], models / "npnet" / name)
            for model in models_of(workflow):
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
def browser():
    pytest.importorskip("playwright", reason="Playwright not found: pip install playwright")
    executable = find_browser()
    if executable is None:
        pytest.skip("Chromium not found: install it, or name it with CHROMIUM")
    with start_browser(executable) as browser:
        yield browser


@pytest.fixture(scope="module")
def canvas(browser, furnished, renderer):
    with open_canvas(browser, furnished, renderer) as canvas:
        yield canvas
