"""The help pages: served, complete, and in step with the nodes and their messages."""

from __future__ import annotations

import re
import urllib.request

import pytest

from tests.nodes.conftest import PACK, ROOT

PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


def listed(page, mark: str, *headings: str) -> list[str]:
    """What stands between two `mark`s before the colon of a list item, under one of these headings."""
    names, heading = [], ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("- ") and heading in headings:
            names += re.findall(re.escape(mark) + "(.+?)" + re.escape(mark), line.split(":")[0])
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
    assert listed(page, "**", "Input", "Inputs") == inputs
    assert listed(page, "**", "Output", "Outputs") == info["output_name"]


@each_page
def test_quotes_messages_that_exist(page):
    sources = [*(ROOT / "nodes").glob("*.py"), *(ROOT / "npnet_core").rglob("*.py")]
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a sentence over several lines
    messages = listed(page, "*", "What goes wrong")
    assert messages
    for message in messages:
        if message == "Value not in list":  # ComfyUI's own
            continue
        for piece in filter(None, (piece.strip() for piece in message.split("…"))):
            assert piece in code, piece
