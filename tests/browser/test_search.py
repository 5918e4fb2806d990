"""The search for nodes finds ours by the words that people have for them, in English and in Chinese."""

from __future__ import annotations

import json

import pytest

from tests.browser.canvas import open_canvas
from tests.comfyui import ROOT

NODE = "NPNetNoise"
CHINESE = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))[NODE]["display_name"]


@pytest.mark.parametrize(
    ("locale", "word", "title"),
    [
        ("en", "golden noise", "NPNet Golden Noise"),
        ("en", "better seed", "NPNet Golden Noise"),
        ("zh", "golden noise", CHINESE),
        ("zh", "黄金噪声", CHINESE),
    ],
)
def test_the_search_finds_golden_noise(browser, furnished, renderer, locale, word, title):
    known = furnished.get(f"/object_info/{NODE}")[NODE].get("search_aliases", [])
    if word in ("better seed", "黄金噪声") and not known:
        pytest.skip("this ComfyUI has no search aliases")
    with open_canvas(browser, furnished, renderer, locale) as canvas:
        canvas.command("Workspace.SearchBox.Toggle")
        canvas.page.wait_for_timeout(500)
        canvas.page.keyboard.type(word)
        canvas.page.wait_for_timeout(1000)
        canvas.screenshot(f"search, {locale}, {word}")
        canvas.page.get_by_text(title, exact=True).first.wait_for(timeout=10_000)
