"""The test bed itself: graphs really run, react to their inputs and are refused when they are wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import comfy.model_management
import pytest
import torch

import nodes
from tests.comfyui import find_comfyui
from tests.nodes.conditionings import SHAPES, conditioning
from tests.nodes.errors import NodeFailed, PromptRefused

SDXL = {
    "1": {"class_type": "TinyTestModel", "inputs": {"seed": 0}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["3", 0],
            "latent_image": ["4", 0],
            "seed": 42,
            "steps": 2,
            "cfg": 5.5,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "tiny"}},
}
SIXTEEN_CHANNELS = {
    "class_type": "EmptySD3LatentImage",
    "inputs": {"width": 64, "height": 64, "batch_size": 1},
}


def changed(graph: dict, node_id: str, **inputs) -> dict:
    graph = copy.deepcopy(graph)
    graph[node_id]["inputs"].update(inputs)
    return graph


def image(result) -> torch.Tensor:
    return result.values["6"][0]


def test_a_graph_repeats_and_follows_seed_prompt_and_weights(run_graph):
    first = image(run_graph(SDXL))
    assert first.shape == (1, 64, 64, 3)
    assert first.std() > 0.01
    assert torch.equal(first, image(run_graph(SDXL)))
    for node_id, inputs in [
        ("5", {"seed": 43}),
        ("5", {"cfg": 1.0}),
        ("2", {"text": "a blue fox"}),
        ("2", {"text": "a (red:1.4) fox"}),
        ("1", {"seed": 1}),
    ]:
        assert not torch.allclose(first, image(run_graph(changed(SDXL, node_id, **inputs))), atol=1e-4), inputs


def test_an_executor_remembers_what_did_not_change(run_graph, executor):
    first = run_graph(SDXL, executor=executor)
    again = run_graph(changed(SDXL, "5", seed=43), executor=executor)
    assert again.values["1"][0] is first.values["1"][0]
    assert again.values["5"][0] is not first.values["5"][0]


def test_hunyuan_dit_runs_and_reads_both_text_encoders(run_graph, executor):
    graph = changed(SDXL, "1")
    graph["1"]["class_type"] = "TinyTestHunyuanDiT"
    graph["2"] = {
        "class_type": "CLIPTextEncodeHunyuanDiT",
        "inputs": {"clip": ["1", 1], "bert": "a red fox", "mt5xl": "a red fox"},
    }
    result = run_graph(graph, executor=executor)
    embedding, extra = result.values["2"][0][0]
    assert embedding.shape == (1, 77, 1024)
    assert extra["conditioning_mt5xl"].shape == (1, 256, 2048)
    for encoder in ("bert", "mt5xl"):
        other = run_graph(changed(graph, "2", **{encoder: "a blue boat"}), executor=executor)
        assert not torch.allclose(image(result), image(other), atol=1e-4), encoder


@pytest.mark.parametrize(("words", "tokens"), [(1, 77), (100, 154), (200, 231)])
def test_longer_prompts_become_more_chunks(run_graph, words, tokens):
    result = run_graph(changed(SDXL, "2", text="word " * words))
    assert result.values["2"][0][0][0].shape == (1, tokens, 2048)


def test_validation_refuses_what_the_server_would(run_graph):
    with pytest.raises(PromptRefused, match="scheduler: 'nope' not in"):
        run_graph(changed(SDXL, "5", scheduler="nope"))
    with pytest.raises(PromptRefused, match="mismatch"):
        run_graph(changed(SDXL, "5", model=["1", 1]))


def test_a_node_that_raises_is_named_with_its_message(run_graph):
    with pytest.raises(NodeFailed, match="channels") as failed:
        run_graph(changed(SDXL, "6", samples=["8", 0]) | {"8": SIXTEEN_CHANNELS})
    assert (failed.value.node_id, failed.value.class_type) == ("6", "VAEDecode")


def test_an_interrupt_stops_the_sampler(run_graph):
    steps = []

    def interrupt(node_id, value, total):
        steps.append((node_id, value, total))
        nodes.interrupt_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run_graph(changed(SDXL, "5", steps=9), on_progress=interrupt)
    assert steps == [("5", 1, 9)]


@pytest.mark.parametrize("model_type", ["EPS", "V_PREDICTION", "V_PREDICTION_EDM", "EDM", "FLOW"])
def test_tiny_sdxl_samples_with_every_kind_of_prediction(call, model_type):
    from comfy.model_base import ModelType

    from tests.nodes.tiny_pack.models import tiny_sdxl

    model = tiny_sdxl(model_type=ModelType[model_type])
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    cond = {"positive": conditioning("sdxl", 1), "negative": conditioning("sdxl", 2, tokens=154)}
    settings = {
        "seed": 1,
        "steps": 2,
        "cfg": 5.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    (out,) = call("KSampler", model=model, latent_image=latent, **cond, **settings)
    assert out["samples"].shape == latent["samples"].shape
    assert torch.isfinite(out["samples"]).all()


@pytest.mark.parametrize("family", SHAPES)
def test_conditionings_differ_by_seed_only(family):
    ((embedding, extra),) = conditioning(family, seed=1, tokens=100, batch=2)
    assert embedding.shape == (2, 100, SHAPES[family][0])
    assert extra["pooled_output"].shape == (2, SHAPES[family][2])
    assert torch.equal(embedding, conditioning(family, seed=1, tokens=100, batch=2)[0][0])
    assert not torch.equal(embedding, conditioning(family, seed=2, tokens=100, batch=2)[0][0])


def test_modules_of_a_pack_are_the_loaded_ones(pack, packs):
    loader = nodes.NODE_CLASS_MAPPINGS["TinyTestModel"]
    assert packs["tiny_pack"].loaders.TinyTestModel is loader
    assert nodes.NODE_CLASS_MAPPINGS["NPNetLoad"] is pack.nodes.golden.NPNetLoad
    assert pack.nodes.golden.load_npnet is pack.npnet_core.checkpoint.load_npnet
    assert Path(nodes.__file__).parent == find_comfyui()  # and not the folder of ours


def test_comfyui_is_found_where_it_is_named_or_around_the_clone(monkeypatch, tmp_path):
    for name in ("named", "home/ComfyUI", "around"):
        (tmp_path / name / "comfy").mkdir(parents=True)
        (tmp_path / name / "comfy" / "cli_args.py").touch()
    monkeypatch.setattr("tests.comfyui.ROOT", tmp_path / "around" / "custom_nodes" / "clone")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "named"))
    assert find_comfyui() == tmp_path / "named"
    monkeypatch.delenv("COMFYUI_PATH")
    assert find_comfyui() == tmp_path / "home" / "ComfyUI"
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert find_comfyui() == tmp_path / "around"
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert find_comfyui() is None


def test_the_server_gives_the_image_of_this_process(server, run_graph):
    entry = server.run(SDXL)
    served = server.images(entry, "7")
    assert torch.equal(served, server.images(server.run(changed(SDXL, "7", filename_prefix="again")), "7"))
    assert (served - image(run_graph(SDXL))).abs().max() <= 1 / 255
    assert not torch.equal(served, server.images(server.run(changed(SDXL, "5", seed=43)), "7"))


def test_the_server_refuses_and_reports(server):
    with pytest.raises(PromptRefused) as refused:
        server.post_prompt(changed(SDXL, "5", scheduler="nope"))
    assert refused.value.node_errors["5"]["errors"][0]["type"] == "value_not_in_list"
    with pytest.raises(NodeFailed, match="channels") as failed:
        server.run(changed(SDXL, "6", samples=["8", 0]) | {"8": SIXTEEN_CHANNELS})
    assert failed.value.class_type == "VAEDecode"


def test_the_server_has_loaded_both_packs(server):
    nodes_of = {node_id: info["python_module"] for node_id, info in server.get("/object_info").items()}
    assert nodes_of["TinyTestModel"] == "custom_nodes.tiny_pack"
    assert nodes_of["NPNetLoad"] == "custom_nodes.npnet-golden-noise"
    assert server.import_seconds("tiny_pack") >= 0
    assert server.import_seconds("npnet-golden-noise") < 1
