"""What newer ComfyUIs offer beyond the oldest: words for the search, advanced inputs, other packs' nodes replaced."""

from __future__ import annotations

import inspect
import json

import pytest
from comfy_api.latest import io

import nodes
from tests.comfyui import ROOT
from tests.nodes.errors import PromptRefused
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.small_graphs import small_graphs

WORDS = [
    "best of n",
    "hps",
    "preference",
    "reward",
    "aesthetic",
    "seed",
    "initial noise",
    "golden noise",
    "inversion",
    "dataset",
    "黄金噪声",
    "种子",
    "反演",
    "偏好",
]
ADVANCED = {
    "NPNetNoise": {"long_prompt"},
    "NPNetModelPatch": {"long_prompt"},
    "NPNetRedenoisePair": {"rounds", "inversion", "depth"},
    "NPNetRedenoisePatch": {"inversion"},
    "NPNetSavePair": {"base_model", "sampling"},
}


def test_arguments_that_are_not_known_are_left_out(pack):
    known = pack.nodes.versions.known

    def older(a, b=0):
        return a + b

    assert known(older, b=1, c=2) == {"b": 1}
    assert known(io.Schema, node_id="x", made_up=True) == {"node_id": "x"}


def schemas() -> dict[str, io.Schema]:
    return {name: node.GET_SCHEMA() for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("NPNet")}


@pytest.mark.parametrize("word", WORDS)
def test_the_search_finds_a_node(packs, word):
    """As the frontend searches: in the node's name, its name in the user's language, and its aliases."""
    if "search_aliases" not in inspect.signature(io.Schema).parameters:
        pytest.skip("this ComfyUI has no search aliases")
    chinese = json.loads((ROOT / "locales/zh/nodeDefs.json").read_text(encoding="utf-8"))
    for language in ("en", "zh"):
        texts = {
            name: [schema.display_name if language == "en" else chinese[name]["display_name"], *schema.search_aliases]
            for name, schema in schemas().items()
        }
        assert any(word in text.lower() for each in texts.values() for text in each), language


def test_advanced_inputs(packs):
    if "advanced" not in inspect.signature(io.Float.Input).parameters:
        pytest.skip("this ComfyUI has no advanced inputs")
    found = {name: {each.id for each in schema.inputs if each.advanced} for name, schema in schemas().items()}
    assert {name: inputs for name, inputs in found.items() if inputs} == ADVANCED
    for schema in schemas().values():  # nobody has to open them
        assert all(each.default is not None for each in schema.inputs if each.advanced)


OTHERS = {
    "GoldenNoise": {"conditioning": "positive", "model_id": "SDXL", "npnet_model": "sdxl.pth", "device": "cuda"},
    "NPNetGoldenNoise": {"prompt": "positive", "model_path": "/a/sdxl.pth", "model_type": "SDXL", "device": "cuda"},
}


@pytest.mark.parametrize("node_id", OTHERS)
def test_another_packs_node_becomes_ours(packs, pack, comfy_base, run_graph, node_id):
    """A graph as it was saved with that pack runs as soon as Load NPNet is connected, which ComfyUI asks for."""
    import server

    manager = getattr(server.PromptServer.instance, "node_replace_manager", None)
    if manager is None:
        pytest.skip("this ComfyUI replaces no nodes")
    graph = small_graphs(save_tiny_npnet(pack, comfy_base), "")["noise"]
    ours = run_graph(graph).values["sampled"][0]["samples"]
    inputs = {key: ["positive", 0] if value == "positive" else value for key, value in OTHERS[node_id].items()}
    theirs = graph | {"golden": {"class_type": node_id, "inputs": {"noise": ["noise", 0], **inputs}, "_meta": {}}}
    manager.apply_replacements(theirs)
    assert theirs["golden"]["class_type"] == "NPNetNoise"
    with pytest.raises(PromptRefused, match="NPNetNoise golden: Required input is missing: npnet"):
        run_graph(theirs)
    theirs["golden"]["inputs"]["npnet"] = ["npnet", 0]
    assert theirs["golden"]["inputs"] == graph["golden"]["inputs"]
    assert (run_graph(theirs).values["sampled"][0]["samples"] == ours).all()


def test_the_frontend_moves_their_links(server):
    """It moves nothing that no mapping names."""
    if not hasattr(io, "NodeReplace"):
        pytest.skip("this ComfyUI replaces no nodes")
    served = server.get("/node_replacements")
    for node_id in OTHERS:
        (replacement,) = served[node_id]
        assert replacement["new_node_id"] == "NPNetNoise"
        assert replacement["output_mapping"] == [{"new_idx": 0, "old_idx": 0}]
