"""ComfyUI with our nodes where the network is refused and nothing can be unpickled: all runs, nothing is tried."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.comfyui import COMFYUI, COMFYUI_ARGS, make_base
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.server import serve
from tests.nodes.small_graphs import pipeline_graph, small_graphs
from tests.nodes.test_wrong_input import Code
from tests.offline import attempts, offline_environment
from trainer.shapes import BASE


@pytest.fixture(scope="module")
def refused_server(pytestconfig, tmp_path_factory):
    """A server that is refused the network and unpickling, and the folder with the log of its attempts."""
    folder, base = tmp_path_factory.mktemp("refused"), make_base(pytestconfig)
    with serve(COMFYUI, base, COMFYUI_ARGS, offline_environment(folder)) as server:
        yield server, folder


def test_every_node(refused_server, pack):
    server, folder = refused_server
    names = {"npnet": save_tiny_npnet(pack, server.base), "scorer": save_tiny_scorer(pack, server.base)}
    shutil.copytree(BASE, server.base / "models" / "diffusers" / "shapes")
    graphs = {**small_graphs(**names), "pipeline": pipeline_graph("shapes")}
    used = {node["class_type"] for graph in graphs.values() for node in graph.values()}
    ours = {name for name in server.get("/object_info") if name.startswith("NPNet")}
    assert ours <= used
    for graph in graphs.values():
        assert server.run(graph)["status"]["completed"]
    assert attempts(folder) == []


def test_a_file_with_code(refused_server, pack, tmp_path):
    """It is refused by our reader, and no unpickler was asked."""
    from tests.nodes.errors import NodeFailed

    server, folder = refused_server
    torch.save({"alpha": Code()}, server.base / "models" / "npnet" / "code.pth")
    names = {"npnet": "code.pth", "scorer": save_tiny_scorer(pack, server.base)}
    with pytest.raises(NodeFailed, match="could run code when unpickled"):
        server.run(small_graphs(**names)["noise"])
    assert "never be seen" not in server.log()
    assert attempts(folder) == []
