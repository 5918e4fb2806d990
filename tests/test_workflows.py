"""The workflow files: written by workflows/build.py, laid out so that everything can be seen.

tests/nodes/test_templates.py holds them against ComfyUI and runs them.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from workflows.build import TEMPLATES, files
from workflows.canvas import column, group, node, queue_graph, row

FOLDER = Path(__file__).resolve().parents[1] / "workflows"
EXPECTED = files()


@pytest.mark.parametrize("path", EXPECTED, ids=[str(path.relative_to(FOLDER)) for path in EXPECTED])
def test_file_is_what_build_writes(path):
    assert path.read_bytes() == EXPECTED[path].encode(), "run `python -m workflows.build`"


def test_no_file_is_left_over():
    assert {*FOLDER.glob("*.json"), *FOLDER.glob("api/*.json")} == set(EXPECTED)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.__name__)
def test_thumbnail_is_small(template):
    thumbnail = FOLDER / f"{template.__name__}.jpg"
    assert thumbnail.stat().st_size < 60_000
    with Image.open(thumbnail) as image:
        assert 500 <= image.width <= 800


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
    workflow = json.loads(EXPECTED[FOLDER / f"{template.__name__}.json"])
    nodes = [frame(on_canvas) for on_canvas in workflow["nodes"]]
    groups = [(x, y, x + w, y + h) for x, y, w, h in (around["bounding"] for around in workflow["groups"])]
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
