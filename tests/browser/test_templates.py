"""The templates as they open: from the template browser, whole, and nothing lies on anything."""

from __future__ import annotations

import json

import pytest

from tests.browser.conftest import TEMPLATES
from tests.comfyui import PACK

each_template = pytest.mark.parametrize("file", TEMPLATES, ids=[file.stem for file in TEMPLATES])


def test_template_browser(canvas):
    """Every template has its card, and every card its picture."""
    canvas.command("Comfy.BrowseTemplates")
    canvas.page.get_by_text(PACK, exact=True).first.click()
    for file in TEMPLATES:
        card = canvas.card(file.stem)
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
    canvas.open_template(file.stem)
    expected = sorted(node["type"] for node in json.loads(file.read_text(encoding="utf-8"))["nodes"])
    assert canvas.types() == expected
    canvas.screenshot(f"{file.stem}, as it opens")
    assert canvas.problems() == []
    canvas.fit()
    canvas.screenshot(file.stem)
    assert canvas.page.locator(".p-dialog:visible").count() == 0  # no missing nodes, no missing models
    assert not [error for error in canvas.errors if f"/extensions/{PACK}/" in error]
