"""The script that shows reports on nodes: the browser finds it, and what it imports."""

from __future__ import annotations

import re
import urllib.parse
import urllib.request

import pytest

from tests.comfyui import PACK, ROOT

SCRIPT = ROOT / "web" / "js" / "report.js"


def test_is_served_with_what_it_imports(server):
    url = f"{server.url}/extensions/{PACK}/js/{SCRIPT.name}"
    assert url.removeprefix(server.url) in server.get("/extensions")
    with urllib.request.urlopen(url) as response:
        script = response.read().decode()
    imports = re.findall(r'^import .* from "(.+)";$', script, re.MULTILINE)
    assert imports
    for imported in imports:
        with urllib.request.urlopen(urllib.parse.urljoin(url, imported)) as response:
            assert "javascript" in response.headers["Content-Type"]


@pytest.mark.parametrize("node_id", re.findall(r'"(NPNet\w+)"', SCRIPT.read_text(encoding="utf-8")))
def test_names_nodes_that_report(node_id, server):
    assert server.get(f"/object_info/{node_id}")[node_id]["output_node"]
