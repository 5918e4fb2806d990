"""The help pages: served, complete, and in step with the nodes and their messages, in English and in translation.

ComfyUI looks for docs/<node>/<language>.md, then for docs/<node>.md, which is the English page.
"""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from tests.comfyui import PACK, ROOT

PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))

TRANSLATED = sorted((ROOT / "web" / "docs").glob("*/*.md"))
HEADINGS = {  # language → of inputs, outputs, messages
    "en": ("Inputs?", "Outputs?", "What goes wrong"),
    "zh": ("输入", "输出", "可能出现的问题"),
}
INPUTS, OUTPUTS, MESSAGES = HEADINGS["en"]

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
each_translation = pytest.mark.parametrize(
    "page", TRANSLATED, ids=[f"{page.parent.name}-{page.stem}" for page in TRANSLATED]
)


def listed(page, mark: str, heading: str) -> list[str]:
    """What stands between two `mark`s before the colon of a list item, under a heading of this pattern."""
    names, found = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            found = bool(re.fullmatch(heading, line[3:]))
        elif line.startswith("- ") and found:
            names += re.findall(re.escape(mark) + "(.+?)" + re.escape(mark), re.split("[:：]", line)[0])
    return names


@pytest.fixture(scope="module")
def object_info(server):
    return server.get("/object_info")


@each_page
def test_is_served_with_its_pictures(page, server):
    docs = f"{server.url}/extensions/{PACK}/docs/"
    text = page.read_text(encoding="utf-8")
    with urllib.request.urlopen(docs + page.name) as response:
        assert response.read().decode() == text
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures
    for picture in pictures:
        with urllib.request.urlopen(docs + picture) as response:
            assert response.headers["Content-Type"].startswith("image/")


@each_page
def test_names_the_node_its_inputs_and_its_outputs(page, object_info):
    info = object_info[page.stem]
    assert page.read_text(encoding="utf-8").splitlines()[0] == f"# {info['display_name']}"
    inputs = [name for section in ("required", "optional") for name in info["input_order"].get(section, [])]
    assert listed(page, "**", INPUTS) == inputs
    assert listed(page, "**", OUTPUTS) == info["output_name"]


@each_page
def test_quotes_messages_that_exist(page):
    sources = [*(ROOT / "nodes").glob("*.py"), *(ROOT / "npnet_core").rglob("*.py")]
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a sentence over several lines
    messages = listed(page, "*", MESSAGES)
    assert messages
    for message in messages:
        if message == "Value not in list":  # ComfyUI's own
            continue
        for piece in filter(None, (piece.strip() for piece in message.split("…"))):
            assert piece in code, piece


def english(page):
    return page.parents[1] / f"{page.parent.name}.md"


def test_every_page_is_translated_into_every_language_of_the_nodes():
    languages = sorted(path.name for path in (ROOT / "locales").iterdir())
    expected = [ROOT / "web" / "docs" / page.stem / f"{language}.md" for page in PAGES for language in languages]
    assert expected == TRANSLATED


@each_translation
def test_translation_is_served(page, server):
    with urllib.request.urlopen(f"{server.url}/extensions/{PACK}/docs/{page.parent.name}/{page.name}") as response:
        assert response.read().decode() == page.read_text(encoding="utf-8")
        assert "html" not in response.headers["Content-Type"]  # ComfyUI takes that for a missing page


@each_translation
def test_translation_names_the_node_its_inputs_and_its_outputs_as_the_canvas_does(page, object_info):
    language, info = page.stem, object_info[page.parent.name]
    defs = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[page.parent.name]
    inputs, outputs, _ = HEADINGS[language]
    assert page.read_text(encoding="utf-8").splitlines()[0] == f"# {defs['display_name']}"
    assert listed(page, "**", inputs) == [entry["name"] for entry in defs["inputs"].values()]
    assert listed(page, "**", outputs) == [entry["name"] for entry in defs["outputs"].values()]
    sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for heading, names in ((inputs, list(defs["inputs"])), (outputs, info["output_name"])):
        (section,) = (section for section in sections if section.startswith(heading + "\n"))
        labels = listed(page, "**", heading)
        for label, name in zip(labels, names, strict=True):  # as English tutorials call it
            assert label.casefold() == name.casefold() or f"**{label}**（{name}）" in section, name


@each_translation
def test_translation_says_what_the_english_page_says(page):
    """The same sections, messages, pictures, links, files and figures."""
    text, original = (path.read_text(encoding="utf-8") for path in (page, english(page)))
    assert listed(page, "*", HEADINGS[page.stem][-1]) == listed(english(page), "*", MESSAGES)
    assert len(re.findall("^## ", text, re.MULTILINE)) == len(re.findall("^## ", original, re.MULTILINE))
    assert len(re.findall("^- ", text, re.MULTILINE)) == len(re.findall("^- ", original, re.MULTILINE))
    for what in (r"\]\((\S+?)\)", r"`([^`]+)`", r"[\w.+-]+\.(?:pt|pth|json|txt|safetensors)\b"):
        assert set(re.findall(what, text, re.ASCII)) == set(re.findall(what, original, re.ASCII)), what
    figures = r"\d[\d.]*\d|\d"
    original = original.replace("30 million", "3000 万")  # as Chinese counts
    assert set(re.findall(figures, original)) <= set(re.findall(figures, text))
