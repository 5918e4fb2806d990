"""The workflow files: each opens without a red spot, equals its API twin, says what to download, and runs."""

from __future__ import annotations

import copy
import json
import os
import shlex
import shutil
import urllib.error
from itertools import combinations
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.comfyui import COMFYUI, COMFYUI_ARGS, PACK, ROOT, make_base
from tests.nodes.interfaces import template_file
from tests.nodes.npnets import save_tiny_adapter, save_tiny_npnet
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.server import serve
from tests.nodes.templates import (
    canvas_problems,
    flow_family,
    graph_nodes,
    models_of,
    note_text,
    overlaps,
    own_nets,
    prompt_problems,
    tiny_family,
    to_prompt,
    with_tiny_models,
    without_meta,
)
from tests.nodes.test_pack import published  # noqa: F401, a fixture
from trainer.commands.fit import Options as FitOptions
from trainer.commands.fit import settings_from
from trainer.commands.options import parse
from trainer.fitting.reward import weights_of
from trainer.fitting.settings import Reward

API = ROOT / "workflows" / "api"  # the same graphs for the queue
FILES = sorted((ROOT / "example_workflows").glob("*.json"))
SMALL = {
    "EmptyLatentImage": {"width": 128, "height": 128},
    "EmptySD3LatentImage": {"width": 128, "height": 128},
    "BasicScheduler": {"steps": 3},
    "KSampler": {"steps": 4},  # one more than the greatest depth
}

NETS = {  # tiny models → family and architecture of the net for them
    "sdxl": ("sdxl", "npnet"),
    "hunyuan-dit": ("hunyuan-dit", "npnet"),
    "schnell": ("flux", "unet"),
    "z-image": ("z-image", "unet"),
}
BY_REWARD = [
    file for file in FILES if "--objective reward" in file.read_text("utf-8")
]  # for nets that one makes oneself

each_template = pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
each_by_reward = pytest.mark.parametrize("file", BY_REWARD, ids=[file.stem for file in BY_REWARD])


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def known(object_info):
    """Skips what is for a base model that came into ComfyUI later."""

    info = object_info["TinyTestFlow"]["input"]["required"]

    def known(prompt: dict) -> None:
        (families, *settings), family = info["family"], flow_family(prompt)
        families = settings[0].get("options", families)
        if family and family not in families:
            pytest.skip(f"this ComfyUI has no {family}")

    return known


@pytest.fixture(scope="module")
def object_info(server):
    return server.get("/object_info")


@pytest.fixture(scope="module")
def tiny_npnets(server, pack):
    return save_tiny_npnets(server, pack)


def save_tiny_npnets(server, pack) -> dict[str, str]:
    """Tiny models → name of an NPNet for them on the server."""
    return {models: save_tiny_npnet(pack, server.base, family, arch=arch) for models, (family, arch) in NETS.items()}


@pytest.fixture(scope="module")
def tiny_scorer(server, pack):
    return save_tiny_scorer(pack, server.base)


def test_every_canvas_has_an_api_twin():
    assert {file.name for file in API.glob("*.json")} == {file.name for file in FILES}


@each_template
def test_opens_clean(file, object_info):
    workflow = read(file)
    assert canvas_problems(workflow, object_info) == []
    assert overlaps(workflow) == []


@each_template
def test_api_twin_is_the_same_graph(file, object_info, known):
    workflow = read(file)
    prompt = without_meta(read(API / file.name))
    known(prompt)
    assert prompt == to_prompt(workflow, object_info)
    files = {model["name"] for model in models_of(workflow)} | own_nets(workflow)
    assert prompt_problems(prompt, object_info, files) == []


@each_by_reward
def test_says_how_to_make_its_net(file):
    """By a command that the trainer takes, with the settings that it is meant to have."""
    text, (npnet,) = note_text(read(file)), own_nets(read(file))
    assert f"models/npnet/{npnet}" in text
    (command,) = [line for line in text.splitlines() if line.startswith("npnet fit ")]
    settings = settings_from(parse(FitOptions, "fit", shlex.split(command)[2:]))
    assert isinstance(settings.objective, Reward)
    assert settings.net.arch == "adapter"
    assert weights_of(settings.objective).keys() == {"hpsv2.1", "imagereward"}


@each_template
def test_says_which_pack_and_models_it_needs(file, object_info, server):
    workflow, folders = read(file), server.get("/models")
    for node in graph_nodes(workflow):
        module = object_info[node["type"]]["python_module"]
        assert node["properties"]["cnr_id"] == (PACK if PACK in module else "comfy-core"), node["type"]
        assert node["properties"]["ver"], node["type"]
    assert models_of(workflow)
    for model in models_of(workflow):
        assert model["url"].startswith(("https://huggingface.co/", "https://civitai.com/")), model
        assert model["directory"] in folders, model
        assert model["name"] in note_text(workflow), model
        assert f"models/{model['directory']}" in note_text(workflow), model


@each_template
def test_is_served_with_a_thumbnail(file, server):
    """And listed once, though ComfyUI looks into workflows/ too; what is not for it stays unserved."""
    assert server.get("/workflow_templates")[PACK].count(file.stem) == 1
    assert server.get(f"/api/workflow_templates/{PACK}/{file.name}") == read(file)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.get(f"/api/workflow_templates/{PACK}/build.py")
    with Image.open(file.with_suffix(".jpg")) as thumbnail:
        thumbnail.verify()


@each_template
def test_runs_small(file, server, tiny_npnets, tiny_scorer, known):
    known(read(API / file.name))
    run(server, read(API / file.name), tiny_npnets, tiny_scorer, SMALL)


@each_by_reward
def test_runs_small_with_an_adapter(file, server, pack, known):
    known(read(API / file.name))
    run_with_an_adapter(file, server, pack)


def run_with_an_adapter(file: Path, server, pack) -> None:
    from tests.nodes.tiny_pack.flow import tiny_flow
    from tests.nodes.tiny_pack.models import tiny_sdxl

    prompt = read(API / file.name)
    models = tiny_family(prompt)
    tiny = tiny_sdxl() if models == "sdxl" else tiny_flow(models)
    adapter = save_tiny_adapter(pack, server.base, NETS[models][0], tiny)
    run(server, prompt, {models: adapter}, "", SMALL)


@pytest.mark.long
@each_template
def test_runs_as_it_is(file, server, tiny_npnets, tiny_scorer, known):
    known(read(API / file.name))
    run(server, read(API / file.name), tiny_npnets, tiny_scorer, {})


@pytest.fixture(scope="module")
def dynamic_server(published, pytestconfig):  # noqa: F811
    """A server with dynamic memory on, as on an NVIDIA card, into which the pack was copied as it is published."""
    pytest.importorskip("comfy.memory_management", reason="ComfyUI has no dynamic memory before 0.12")
    base = make_base(pytestconfig)
    (base / "custom_nodes" / PACK).unlink()
    shutil.copytree(published, base / "custom_nodes" / PACK)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DYNAMIC_MEMORY": "1"}
    with serve(COMFYUI, base, COMFYUI_ARGS, environment) as server:
        yield server


@each_template
def test_published_and_with_dynamic_memory_it_is_served_and_runs(file, dynamic_server, pack, known):
    known(read(API / file.name))
    assert dynamic_server.get("/workflow_templates")[PACK].count(file.stem) == 1
    workflow = dynamic_server.get(f"/api/workflow_templates/{PACK}/{file.name}")
    prompt = to_prompt(workflow, dynamic_server.get("/object_info"))
    run(
        dynamic_server,
        prompt,
        save_tiny_npnets(dynamic_server, pack),
        save_tiny_scorer(pack, dynamic_server.base),
        SMALL,
    )


def run(server, prompt: dict, tiny_npnets: dict[str, str], tiny_scorer: str, values: dict[str, dict]) -> None:
    """Run a template's graph on tiny models; every picture has content and no two are alike."""
    files = {
        "NPNetScorerLoad": {"scorer_name": tiny_scorer},
        "NPNetLoad": {"npnet_name": tiny_npnets.get(tiny_family(prompt))},
    }
    prompt = with_tiny_models(prompt, values | files)
    entry = server.wait(server.post_prompt(prompt), timeout=1800)
    pictures = [server.images(entry, node_id) for node_id, shown in entry["outputs"].items() if "images" in shown]
    assert pictures
    assert all(picture.std() > 0.01 for picture in pictures)
    assert not any(torch.equal(one, other) for one, other in combinations(pictures, 2))


OF_COMFYUI = {  # ours → ComfyUI's own for the same model; for Krea-2 Raw it has only the distilled model's
    "golden_noise_sdxl_turbo": "sdxlturbo_example",
    "golden_noise_flux_schnell": "flux_schnell_full_text_to_image",
    "golden_noise_z_image_turbo": "image_z_image_turbo",
    "redenoise_z_image": "image_z_image",
    "redenoise_z_image_turbo": "image_z_image_turbo",
    "redenoise_flux_dev": "flux_dev_full_text_to_image",
    "redenoise_qwen_image": "image_qwen_Image_2512",
    "redenoise_sd35": "sd3.5_simple_example",
    "collect_pairs_z_image": "image_z_image",
}
SETTINGS = (
    "CLIPLoader",
    "DualCLIPLoader",
    "UNETLoader",
    "VAELoader",
    "CheckpointLoaderSimple",
    "ModelSamplingAuraFlow",
)
SETTINGS += ("EmptyLatentImage", "EmptySD3LatentImage", "KSampler", "KSamplerSelect", "SDTurboScheduler")
ADDED = {"redenoise_z_image_turbo": "z_image_bf16.safetensors", "collect_pairs_z_image": "HPS_v2.1_compressed.pt"}


def settings(workflow: dict) -> list[tuple[str, list]]:
    """Class and values of what loads and samples, whatever the seed."""
    nodes = [node for node in graph_nodes(workflow) if node["type"] in SETTINGS]
    return [(each["type"], each["widgets_values"][2 * (each["type"] == "KSampler") :]) for each in nodes]


@pytest.mark.parametrize("name", OF_COMFYUI)
def test_loads_and_samples_as_comfyui_s_own_template(name):
    file = template_file(OF_COMFYUI[name])
    if not file.exists():
        pytest.skip(f"this ComfyUI has no {file.stem}")
    ours, theirs = read(ROOT / "example_workflows" / f"{name}.json"), read(file)
    downloads, known = (
        {(each["name"], each["url"].removesuffix("?download=true"), each["directory"]) for each in models_of(workflow)}
        for workflow in (ours, theirs)
    )
    assert {each[0] for each in downloads - known} == {ADDED[name]} if name in ADDED else downloads <= known
    there = settings(theirs)
    for kind, values in settings(ours):
        in_parts = kind == "KSamplerSelect" and kind not in dict(there)  # what their KSampler has in one
        if values[0] != ADDED.get(name) and not in_parts:
            assert any(kind == other and values == pytest.approx(given) for other, given in there), kind


# ---- the checks themselves ------------------------------------------------------------------------------------------

PROMPT = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 1}},
    "4": {"class_type": "NPNetLoad", "inputs": {"npnet_name": "npnet.safetensors"}},
    "5": {
        "class_type": "NPNetModelPatch",
        "inputs": {"model": ["1", 0], "npnet": ["4", 0], "strength": 1.0, "long_prompt": "truncate"},
    },
    "6": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["5", 0],
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
            "seed": 1,
            "steps": 20,
            "cfg": 5.5,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "golden"}},
}
DOWNLOADS = {"sdxl.safetensors", "npnet.safetensors"}
CANVAS = {
    "version": 0.4,
    "last_node_id": 3,
    "last_link_id": 1,
    "nodes": [
        {
            "id": 1,
            "type": "RandomNoise",
            "pos": [0, 0],
            "size": [300, 80],
            "mode": 0,
            "outputs": [{"name": "NOISE", "type": "NOISE", "links": []}],
            "properties": {},
            "widgets_values": [7, "fixed"],
        },
        {
            "id": 2,
            "type": "EmptyLatentImage",
            "pos": [0, 200],
            "size": [300, 100],
            "mode": 0,
            "outputs": [{"name": "LATENT", "type": "LATENT", "links": [1]}],
            "properties": {},
            "widgets_values": [1024, 1024, 1],
        },
        {
            "id": 3,
            "type": "LatentUpscaleBy",
            "pos": [400, 200],
            "size": [300, 100],
            "mode": 0,
            "inputs": [{"name": "samples", "type": "LATENT", "link": 1}],
            "outputs": [{"name": "LATENT", "type": "LATENT", "links": None}],
            "properties": {},
            "widgets_values": ["bicubic", 1.5],
        },
    ],
    "links": [[1, 2, 0, 3, 0, "LATENT"]],
}


# saved by the real frontend
@pytest.mark.parametrize("name", ["sdxlturbo_example", "flux_dev_full_text_to_image", "sd3.5_simple_example"])
def test_workflows_of_comfyui_have_no_problems(name, object_info):
    workflow = read(template_file(name))
    assert canvas_problems(workflow, object_info) == []
    downloads = {model["name"] for model in models_of(workflow)}
    assert prompt_problems(to_prompt(workflow, object_info), object_info, downloads) == []


def test_a_good_canvas_has_no_problems_and_becomes_its_prompt(object_info):
    assert canvas_problems(CANVAS, object_info) == []
    assert overlaps(CANVAS) == []
    assert to_prompt(CANVAS, object_info) == {
        "1": {"class_type": "RandomNoise", "inputs": {"noise_seed": 7}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 1}},
        "3": {
            "class_type": "LatentUpscaleBy",
            "inputs": {"samples": ["2", 0], "upscale_method": "bicubic", "scale_by": 1.5},
        },
    }


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda w: w.update(version=1), "version is 1, not 0.4"),
        (lambda w: w["nodes"][0].update(type="RandomNoises"), "RandomNoises 1: no such node"),
        (lambda w: w["nodes"][1].update(id=1), "a node id stands twice"),
        (lambda w: w.update(last_link_id=0), "last_link_id is below 1"),
        (lambda w: w["nodes"][0].update(mode=4), "RandomNoise 1: is muted or bypassed"),
        (lambda w: w["nodes"][0]["widgets_values"].pop(), "RandomNoise 1: has 2 widget values, not 1"),
        (lambda w: w["nodes"][0].update(widgets_values=[7, 8]), "RandomNoise 1: noise_seed has control 8"),
        (
            lambda w: w["nodes"][2]["inputs"][0].update(name="latent"),
            "LatentUpscaleBy 3: has no input latent",
        ),
        (
            lambda w: w["nodes"][2]["inputs"][0].update(link=None),
            "LatentUpscaleBy 3: samples is not connected",
        ),
        (lambda w: w["nodes"][2]["inputs"][0].update(type="IMAGE"), "samples is LATENT, not IMAGE"),
        (lambda w: w["nodes"][1]["outputs"][0].update(name="samples"), "EmptyLatentImage 2: outputs are"),
        (lambda w: w["links"].clear(), "LatentUpscaleBy 3: link 1 does not exist"),
        (lambda w: w["links"][0].__setitem__(1, 9), "link 1: from node 9 to node 3"),
        (lambda w: w["links"][0].__setitem__(1, 1), "link 1: is not an output 0 of RandomNoise 1"),
        (lambda w: w["links"][0].__setitem__(4, 1), "link 1: is not an input 1 of LatentUpscaleBy 3"),
        (lambda w: w["links"][0].__setitem__(5, "IMAGE"), "link 1: carries LATENT as IMAGE to LATENT"),
    ],
)
def test_a_spoilt_canvas_is_found_out(object_info, spoil, problem):
    workflow = copy.deepcopy(CANVAS)
    spoil(workflow)
    assert any(problem in found for found in canvas_problems(workflow, object_info))


def test_nodes_on_each_other_are_found_out():
    workflow = copy.deepcopy(CANVAS)
    workflow["nodes"][1]["pos"] = [290, 100]  # its title is 30 above
    assert overlaps(workflow) == [
        "EmptyLatentImage 2 overlaps RandomNoise 1",
        "LatentUpscaleBy 3 overlaps EmptyLatentImage 2",
    ]


@pytest.mark.parametrize(
    ("node_id", "inputs", "problem"),
    [
        ("6", {"scheduler": "nope"}, "KSampler 6: scheduler 'nope' is none of"),
        (
            "1",
            {"ckpt_name": "sd15.safetensors"},
            "CheckpointLoaderSimple 1: ckpt_name 'sd15.safetensors' is none",
        ),
        ("5", {"strength": 2.5}, "NPNetModelPatch 5: strength 2.5 is not in 0.0..2.0"),
        ("5", {"strength": True}, "NPNetModelPatch 5: strength True is no FLOAT"),
        ("3", {"width": "1024"}, "EmptyLatentImage 3: width '1024' is no INT"),
        ("5", {"power": 1.0}, "NPNetModelPatch 5: has no input power"),
        ("5", {"npnet": "npnet.safetensors"}, "NPNetModelPatch 5: npnet is 'npnet.safetensors', not a link"),
        ("5", {"npnet": ["1", 0]}, "NPNetModelPatch 5: npnet is NPNET, the link is MODEL"),
        ("5", {"npnet": ["9", 0]}, "NPNetModelPatch 5: npnet is linked to 9.0, which does not exist"),
        ("5", {"npnet": ["4", 1]}, "NPNetModelPatch 5: npnet is linked to 4.1, which does not exist"),
    ],
)
def test_a_spoilt_prompt_is_found_out(object_info, node_id, inputs, problem):
    assert prompt_problems(PROMPT, object_info, DOWNLOADS) == []
    prompt = copy.deepcopy(PROMPT)
    prompt[node_id]["inputs"].update(inputs)
    (found,) = prompt_problems(prompt, object_info, DOWNLOADS)
    assert found.startswith(problem)


def test_missing_nodes_and_inputs_of_a_prompt_are_found_out(object_info):
    prompt = copy.deepcopy(PROMPT)
    prompt["2"]["class_type"] = "CLIPTextEncodes"
    del prompt["3"]["inputs"]["width"]
    found = prompt_problems(prompt, object_info, DOWNLOADS)
    assert found[:2] == ["CLIPTextEncodes 2: no such node", "EmptyLatentImage 3: width is missing"]
    assert found[2].startswith("KSampler 6: positive is linked to 2.0")


def test_a_prompt_runs_on_tiny_models(server, tiny_npnets, tiny_scorer):
    plain = copy.deepcopy(PROMPT)  # the same seed without golden noise, beside it
    plain["6"]["inputs"]["model"] = ["1", 0]
    both = PROMPT | {"9": plain["6"], "10": plain["7"], "11": plain["8"]}
    both["10"]["inputs"]["samples"], both["11"]["inputs"]["images"] = ["9", 0], ["10", 0]
    run(server, both, tiny_npnets, tiny_scorer, SMALL)
