"""The workflow files: written by workflows/build.py, laid out so that everything can be seen.

tests/nodes/test_templates.py holds them against ComfyUI and runs them.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from workflows.build import API, SERVED, SHAPES, SUBGRAPHS, files
from workflows.formats import queue_graph
from workflows.graph import Given, node, subgraph
from workflows.layout import column, group, row
from workflows.templates import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = files()


@pytest.mark.parametrize("path", EXPECTED, ids=[str(path.relative_to(ROOT)) for path in EXPECTED])
def test_file_is_what_build_writes(path):
    assert path.read_bytes() == EXPECTED[path].encode(), "run `python -m workflows.build`"


def test_no_file_is_left_over():
    """ComfyUI would show JSON in workflows/ a second time."""
    folders = (SERVED, API, API.parent, SUBGRAPHS, SHAPES.parent)
    assert {path for folder in folders for path in folder.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.__name__)
def test_thumbnail_is_small_and_square(template):
    """As ComfyUI's cards are."""
    thumbnail = SERVED / f"{template.__name__}.jpg"
    assert thumbnail.stat().st_size < 60_000
    with Image.open(thumbnail) as image:
        assert image.width == image.height == 512


def frame(on_canvas: dict) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a node, its title included."""
    (x, y), (width, height) = on_canvas["pos"], on_canvas["size"]
    return x, y - 30, x + width, y + height


def inside(inner, outer) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def apart(one, other) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.__name__)
def test_nodes_and_groups_keep_clear_of_each_other(template):
    workflow = json.loads(EXPECTED[SERVED / f"{template.__name__}.json"])
    for graph in (workflow, *workflow.get("definitions", {}).get("subgraphs", [])):
        nodes = [frame(on_canvas) for on_canvas in graph["nodes"]]
        groups = [(x, y, x + w, y + h) for x, y, w, h in (around["bounding"] for around in graph["groups"])]
        for one, other in [*combinations(nodes, 2), *combinations(groups, 2)]:
            assert apart(one, other), (one, other)
        for one in nodes:
            assert all(inside(one, around) or apart(one, around) for around in groups), one


def test_ids_follow_the_links():
    """What a node needs comes first, wherever it stands."""
    latent = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    loader = node("CheckpointLoaderSimple", ckpt_name="a.safetensors")
    image = node("VAEDecode", samples=latent, vae=loader["VAE"])
    graph = queue_graph(row(latent, loader, image))
    assert graph["3"]["inputs"] == {"samples": ["1", 0], "vae": ["2", 2]}
    assert queue_graph(row(group("Images", image), column(latent, loader))) == graph


def encoded_and_decoded(text, vae):
    latent = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    return [node("CLIPTextEncode", text=text), latent, node("VAEDecode", samples=latent, vae=vae)]


def test_a_subgraph_is_queued_as_the_nodes_inside_of_it():
    loader = node("CheckpointLoaderSimple", ckpt_name="a.safetensors")
    plain = queue_graph(row(loader, *(nodes := encoded_and_decoded("a fox", loader["VAE"])), saved(nodes[2])))
    nodes = encoded_and_decoded(Given("prompt"), Given("vae"))
    inside = subgraph("Inside", row(*nodes), {"image": nodes[2]}, vae=loader["VAE"], prompt="a fox")
    graph = queue_graph(row(loader, inside, saved(inside)))
    assert by_class(graph) == by_class(plain)
    assert {number for number in graph if ":" in number} == {"2:4", "2:5", "2:6"}


def saved(images):
    return node("SaveImage", images=images, filename_prefix="a")


def by_class(graph: dict) -> dict:
    """A graph whose ids are the classes of its nodes, each of which is there once."""
    named = {number: each["class_type"] for number, each in graph.items()}
    return {
        each["class_type"]: {
            name: [named[value[0]], value[1]] if isinstance(value, list) else value
            for name, value in each["inputs"].items()
        }
        for each in graph.values()
    }


def test_a_subgraph_is_given_what_it_takes():
    with pytest.raises(TypeError, match=r"Inside is given \['text'\] and takes \['prompt'\]"):
        subgraph("Inside", node("CLIPTextEncode", text=Given("prompt")), {}, text="a fox")
