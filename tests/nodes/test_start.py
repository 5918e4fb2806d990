"""The pack's share of ComfyUI's start: nothing is imported that ComfyUI has not imported anyway."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import asyncio, json, sys
from pathlib import Path
from tests.nodes.conftest import configure
base, pack = Path(sys.argv[1]), Path(sys.argv[2])
configure(base)
import execution, nodes
from tests.nodes.interfaces import start_prompt_server
start_prompt_server()  # as main.py, before it loads any pack
import comfy_config.config_parser  # by which ComfyUI reads the pack's pyproject.toml
before, known = set(sys.modules), set(nodes.NODE_CLASS_MAPPINGS)
assert asyncio.run(nodes.load_custom_node(str(pack), module_parent="custom_nodes"))
ours = str(pack).replace(".", "_x_")
new = {name for name in set(sys.modules) - before if name != ours and not name.startswith(ours + ".")}
print(json.dumps({"modules": sorted(new), "nodes": sorted(set(nodes.NODE_CLASS_MAPPINGS) - known)}))
"""


@pytest.fixture(scope="module")
def added(comfy_base):
    """Modules that are not ours and nodes, by the loading of the pack into a ComfyUI with its core nodes alone."""
    pack = comfy_base / "custom_nodes" / "npnet-golden-noise"
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(comfy_base), str(pack)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def test_imports_nothing_but_itself_and_the_standard_library(added):
    others = {name.partition(".")[0] for name in added["modules"]} - sys.stdlib_module_names
    assert others == set()


def test_adds_its_nodes_and_no_others(added):
    assert {"NPNetLoad", "NPNetNoise", "NPNetModelPatch"} <= set(added["nodes"])
    assert all(name.startswith("NPNet") for name in added["nodes"])
