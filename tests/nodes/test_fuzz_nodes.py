"""Hostile and unlucky input to the nodes, through ComfyUI's validation and executor; see tests/fuzz/harness.py."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from random import Random

import pytest
import torch

from tests.fuzz.damage import damaged, hostile_pickle, hostile_safetensors
from tests.fuzz.harness import fuzz
from tests.fuzz.odd import odd_images, odd_name, odd_text, odd_value
from tests.nodes.conditionings import conditioning
from tests.nodes.errors import NodeFailed, PromptRefused
from tests.nodes.graphs import call
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.small_graphs import small_graphs

# What a widget shows as its limits, and what lies just beyond them.
LIMITS = {
    "strength": [0.0, 2.0, -0.01, 2.01, 1e-9, math.nan],
    "long_prompt": ["truncate", "average", "recurse"],
    "cfg": [0.0, 100.0, 100.1, -0.1],
    "inversion_cfg": [0.0, 100.0, 1.0],
    "rounds": [1, 100, 0, 101],
    "depth": [1, 2, 100, 0, 101],
    "inversion": ["exact", "released", "fixed-point"],
    "margin": [-100.0, 100.0, 100.001, 0.0, math.nan],
    "k": [1, 4096, 0, 4097, 2],
    "kind": ["auto", "pickscore", "hpsv2", "clipscore"],
    "dataset": ["pairs", ""],
}


@pytest.fixture(scope="module")
def names(pack, comfy_base) -> dict[str, str]:
    return {"npnet": save_tiny_npnet(pack, comfy_base), "scorer": save_tiny_scorer(pack, comfy_base)}


@pytest.fixture
def refusal(pack):
    """Of our nodes only an InputError is an answer; what ComfyUI's own nodes or its validation say is theirs."""

    def answer(error: Exception) -> tuple[str, str] | None:
        if isinstance(error, pack.npnet_core.errors.InputError):
            return "refused", str(error)
        if isinstance(error, PromptRefused):
            return "refused by ComfyUI", str(error)
        if isinstance(error, NodeFailed) and not error.class_type.startswith("NPNet"):
            return "failed in a node of ComfyUI", str(error)
        if isinstance(error, NodeFailed) and error.exception_type.endswith("InputError"):
            return "refused", str(error)
        if isinstance(error, NodeFailed) and str(error).startswith("Expected more than 1 value per channel"):
            return "failed in the base model", str(error)  # PyTorch's normalisation, at latents of 2x2
        return None

    return answer


@pytest.fixture
def try_graphs(refusal, comfy_base, run_graph, executor):
    """`try_graphs("kind", make)`: make(random) → (what, graph); graphs write into ComfyUI's output folder only."""

    def try_them(kind: str, make) -> None:
        def case(random: Random, folder: Path):
            what, graph = make(random)
            return what, lambda: run_graph(graph, executor=executor)

        fuzz(kind, case, comfy_base, refusal, room="output")

    return try_them


PRIMITIVES = {float: "PrimitiveFloat", int: "PrimitiveInt", str: "PrimitiveString", bool: "PrimitiveBoolean"}


def test_values(names, try_graphs):
    """Widget values at and beyond their limits and of every type, typed in or through a link."""

    def make(random: Random):
        name, graph = random.choice(list(small_graphs(**names).items()))
        graph = copy.deepcopy(graph)
        widgets = [
            (node_id, key)
            for node_id, node in graph.items()
            for key, value in node["inputs"].items()
            if node["class_type"].startswith("NPNet") and not isinstance(value, list)
        ]
        changed = []
        for node_id, key in random.sample(widgets, random.choice([1, 1, 2])):
            value = random.choice(LIMITS.get(key, [])) if key in LIMITS and random.random() < 0.7 else odd_value(random)
            if type(value) in PRIMITIVES and random.random() < 0.3:
                graph[f"linked {key}"] = {"class_type": PRIMITIVES[type(value)], "inputs": {"value": value}}
                graph[node_id]["inputs"][key] = [f"linked {key}", 0]
            else:
                graph[node_id]["inputs"][key] = value
            changed.append(f"{key} = {str(value)[:40]!a}")
        if random.random() < 0.2:
            sides = {"width": random.choice([16, 24, 1000, 8192]), "height": 16, "batch_size": random.choice([1, 3])}
            graph["latent"]["inputs"] = sides
            changed.append(str(sides))
        return f"{name}: {', '.join(changed)}", graph

    try_graphs("workflow values", make)


def test_prompts(names, try_graphs):
    def make(random: Random):
        name, graph = random.choice(list(small_graphs(**names).items()))
        graph, text = copy.deepcopy(graph), odd_text(random)
        for node in graph.values():
            for key in ("text", "prompt", "base_model", "sampling"):
                if isinstance(node["inputs"].get(key), str) and random.random() < 0.7:
                    node["inputs"][key] = text
            if "long_prompt" in node["inputs"] and len(text) < 5000:
                node["inputs"]["long_prompt"] = random.choice(LIMITS["long_prompt"])
        return f"{name}: {text[:60]!a}, {len(text)} characters", graph

    try_graphs("prompts in a graph", make)


def test_dataset_and_file_names(names, try_graphs):
    def make(random: Random):
        what = random.choice(["dataset", "dataset", "npnet_name", "scorer_name"])
        name = {"dataset": "pair", "npnet_name": "patch", "scorer_name": "best"}[what]
        graph, value = copy.deepcopy(small_graphs(**names)[name]), odd_name(random)
        for node in graph.values():
            if what in node["inputs"]:
                node["inputs"][what] = value
        return f"{what} {value[:80]!a}", graph

    try_graphs("names in a graph", make)


def test_file_names_that_no_list_has(names, comfy_base, refusal):
    """As a newer ComfyUI, or a program that calls the node, may let them through."""

    def case(random: Random, folder: Path):
        name = odd_name(random)
        node = random.choice(["NPNetLoad", "NPNetScorerLoad"])
        inputs = {"npnet_name": name} if node == "NPNetLoad" else {"scorer_name": name, "kind": "auto"}
        return f"{node} {name[:80]!a}", lambda: call(node, **inputs)

    fuzz("file names of nodes", case, comfy_base, refusal, room="output")


def test_images(names, comfy_base, refusal):
    (scorer,) = call("NPNetScorerLoad", scorer_name=names["scorer"], kind="auto")

    def case(random: Random, folder: Path):
        what, images = odd_images(random)
        prompt = random.choice(["a red fox", "", odd_text(random)])
        if random.random() < 0.5:
            other = images if random.random() < 0.7 else odd_images(random)[1]
            pictures = {"source_images": images, "target_images": other}
            return what, lambda: call("NPNetHPSFilter", scorer=scorer, prompt=prompt, margin=0.0, **pictures)
        latents = {"samples": torch.zeros(random.choice([len(images) if images.ndim else 1] * 4 + [0, 2]), 4, 2, 2)}
        if random.random() < 0.3:
            latents["noise_mask"] = torch.ones(random.choice([(1, 16, 16), (2, 1, 16, 16), (16, 16)]))
        options = {"k": random.choice([1, 1, 1, 2, 0, 4096]), "latents": random.choice([None, latents])}
        return what, lambda: call("NPNetPickBest", scorer=scorer, prompt=prompt, images=images, **options)

    fuzz("images in a graph", case, comfy_base, refusal, room="output")


def test_latents_and_conditionings(names, comfy_base, refusal):
    (npnet,) = call("NPNetLoad", npnet_name=names["npnet"])
    (noise,) = call("RandomNoise", noise_seed=1)

    def case(random: Random, folder: Path):
        family = random.choice(["sdxl"] * 6 + ["sd1", "sd2", "sd3", "hunyuan_dit"])
        cond = conditioning(family, tokens=random.choice([1, 76, 77, 78, 154, 400]), batch=random.choice([1, 1, 2]))
        entry = cond[0][1]
        if random.random() < 0.3:
            key = random.choice(["start_percent", "end_percent", "area", "mask", "pooled_output", "strength", "x"])
            entry[key] = odd_value(random)
            if key.endswith("percent") and not isinstance(entry[key], (int, float)):
                entry[key] = 0.5  # ComfyUI's own nodes give numbers
        cond = random.choice([cond] * 6 + [[], cond + cond, [[cond[0][0][0], entry]], [[None, entry]]])
        shape = random.choice(
            [(1, 4, 8, 6)] * 6 + [(2, 4, 1, 1), (3, 4, 1, 200), (1, 16, 8, 8), (4, 8, 8), (0, 4, 8, 8)]
        )
        options = {"strength": random.choice([1.0, 0.0, 2.0]), "long_prompt": random.choice(LIMITS["long_prompt"])}
        if shape[-1] != 200 and random.random() < 0.1:
            shape = (*shape[:-2], 1024, 3)

        def run():
            (golden,) = call("NPNetNoise", npnet=npnet, noise=noise, conditioning=cond, **options)
            made = golden.generate_noise({"samples": torch.zeros(shape)})
            assert made.shape == shape
            assert made.isfinite().all()

        return f"{family}, latent {shape}, {options}", run

    fuzz("latents and conditionings", case, comfy_base, refusal, room="output")


def test_model_files(pack, names, comfy_base, refusal):
    folders = {"NPNetLoad": comfy_base / "models" / "npnet", "NPNetScorerLoad": comfy_base / "models" / "preference"}
    good = {
        "NPNetLoad": (folders["NPNetLoad"] / names["npnet"]).read_bytes(),
        "NPNetScorerLoad": (folders["NPNetScorerLoad"] / names["scorer"]).read_bytes(),
    }
    configs = {"NPNetLoad": (pack.npnet_core.checkpoint.CONFIG,)}
    configs["NPNetScorerLoad"] = (pack.npnet_core.preference.files.CONFIG,)

    def case(random: Random, folder: Path):
        node = random.choice(list(good))
        damage = random.choice(["damaged", "hostile", "pickle"])
        if damage == "pickle":
            what, content = hostile_pickle(random, {"alpha": torch.ones(1), "clip.a": torch.ones(2, 2)}, folder)
        elif damage == "hostile":
            what, content = hostile_safetensors(random, good[node], configs[node])
        else:
            what, content = damaged(random, good[node])
        (folders[node] / "fuzz.safetensors").write_bytes(content)
        inputs = {"NPNetLoad": {"npnet_name": "fuzz.safetensors"}}
        inputs["NPNetScorerLoad"] = {"scorer_name": "fuzz.safetensors", "kind": random.choice(LIMITS["kind"])}
        return f"{node}, {what}", lambda: call(node, **inputs[node])

    try:
        fuzz("model files of nodes", case, comfy_base, refusal, room="output")
    finally:
        for folder in folders.values():
            (folder / "fuzz.safetensors").unlink(missing_ok=True)
