"""`python -m workflows.build` writes the workflow files: templates for canvas and queue, and blueprints."""

from __future__ import annotations

import json
from pathlib import Path

from workflows.blueprints import BLUEPRINTS
from workflows.formats import blueprint_graph, canvas_graph, queue_graph
from workflows.shapes_world import NAME, shapes_world
from workflows.templates import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
SERVED = ROOT / "example_workflows"  # what ComfyUI shows as templates
API = ROOT / "workflows" / "api"
SHAPES = ROOT / "trainer" / "shapes" / f"{NAME}.json"  # what `npnet demo --comfyui` puts into a ComfyUI
SUBGRAPHS = ROOT / "subgraphs"  # what ComfyUI shows as blueprints


def files() -> dict[Path, str]:
    """Path → content of every workflow file."""
    graphs = {}
    for template in TEMPLATES:
        name, layout = template.__name__, template()
        graphs[SERVED / f"{name}.json"] = canvas_graph(name, layout)
        graphs[API / f"{name}.json"] = queue_graph(layout)
    graphs[SHAPES] = canvas_graph(NAME, shapes_world())
    for blueprint in BLUEPRINTS:
        node, description, aliases = blueprint()
        graphs[SUBGRAPHS / f"{node.title}.json"] = blueprint_graph(node, description, aliases)
    return {path: json.dumps(graph, indent=2, ensure_ascii=False) + "\n" for path, graph in graphs.items()}


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content, encoding="utf-8", newline="\n")
