"""The blueprints: listed by ComfyUI where it knows such files, and whole: put into a graph they run."""

from __future__ import annotations

import json
import urllib.error

import pytest

from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.templates import canvas_problems, models_of, prompt_problems, to_prompt, with_tiny_models
from workflows.build import SUBGRAPHS

FILES = sorted(SUBGRAPHS.glob("*.json"))

each_blueprint = pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])


def read(file) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def object_info(server):
    return server.get("/object_info")


def test_are_listed_and_handed_out(server):
    try:
        listed = server.get("/global_subgraphs")
    except urllib.error.HTTPError:
        pytest.skip("this ComfyUI knows no blueprints of packs")
    ours = {key: entry["name"] for key, entry in listed.items() if "npnet-golden-noise" in entry["info"]["node_pack"]}
    assert sorted(ours.values()) == [file.stem for file in FILES]
    for key, name in ours.items():
        assert json.loads(server.get(f"/global_subgraphs/{key}")["data"]) == read(SUBGRAPHS / f"{name}.json")


@each_blueprint
def test_is_one_node_that_lacks_only_its_links(file, object_info):
    workflow = read(file)
    (outer,) = workflow["nodes"]
    assert outer["title"] == file.stem  # ComfyUI calls it as its file
    open_sockets = [slot["name"] for slot in outer["inputs"] if "widget" not in slot]
    problems = canvas_problems(workflow, object_info)
    assert problems == [f"{outer['type']} {outer['id']}: {name} is not connected" for name in open_sockets]
    assert models_of(workflow)  # what it needs can be downloaded


def in_a_graph(workflow: dict) -> dict:
    """The workflow with what its node lacks before it, and its picture behind it."""
    workflow = json.loads(json.dumps(workflow))
    (outer,) = workflow["nodes"]

    def add(kind: str, inputs: dict[str, str], outputs: list[str], values: list) -> dict:
        node = {
            "id": 100 + len(workflow["nodes"]),
            "type": kind,
            "mode": 0,
            "inputs": [{"name": name, "type": kind, "link": None} for name, kind in inputs.items()],
            "outputs": [{"name": name, "type": name, "links": []} for name in outputs],
            "widgets_values": values,
        }
        workflow["nodes"].append(node)
        return node

    def connect(origin: dict, target: dict) -> None:
        """Every open socket of the target to the first output of its type."""
        kinds = [slot["type"] for slot in origin["outputs"]]
        for place, slot in enumerate(target["inputs"]):
            if slot["link"] is None and "widget" not in slot and slot["type"] in kinds:
                slot["link"] = 1000 + len(workflow["links"])
                at = kinds.index(slot["type"])
                origin["outputs"][at]["links"].append(slot["link"])
                workflow["links"].append([slot["link"], origin["id"], at, target["id"], place, slot["type"]])

    loader = add("TinyTestModel", {}, ["MODEL", "CLIP", "VAE"], [0, "fixed"])
    prompt = add("CLIPTextEncode", {"clip": "CLIP"}, ["CONDITIONING"], ["a red fox"])
    latent = add("EmptyLatentImage", {}, ["LATENT"], [64, 64, 1])
    image = add("VAEDecode", {"samples": "LATENT", "vae": "VAE"}, ["IMAGE"], [])
    saved = add("SaveImage", {"images": "IMAGE"}, [], ["blueprint"])
    for origin, target in ((loader, prompt), (loader, outer), (prompt, outer), (latent, outer)):
        connect(origin, target)
    connect(outer, saved)  # a picture, or what becomes one
    for origin, target in ((outer, image), (loader, image), (image, saved)):
        connect(origin, target)
    return workflow


@each_blueprint
def test_runs_in_a_graph(file, object_info, server, pack):
    workflow = in_a_graph(read(file))
    prompt = to_prompt(workflow, object_info)
    downloads = {model["name"] for model in models_of(read(file))}
    assert prompt_problems(prompt, object_info, downloads) == []
    small = {
        "NPNetLoad": {"npnet_name": save_tiny_npnet(pack, server.base, "sdxl")},
        "NPNetScorerLoad": {"scorer_name": save_tiny_scorer(pack, server.base)},
        "EmptyLatentImage": {"width": 128, "height": 128},
        "KSampler": {"steps": 3},
    }
    entry = server.run(with_tiny_models(prompt, small))
    (saved,) = (node_id for node_id, node in prompt.items() if node["class_type"] == "SaveImage")
    picture = server.images(entry, saved)
    assert picture.shape == (1, 128, 128, 3)
    assert picture.std() > 0.01
