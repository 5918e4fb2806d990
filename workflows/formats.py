"""The two JSON forms of a graph: for the canvas (UI format 0.4) and for the queue (API format).

Ids follow the links and places are computed, so the files can be written again at any time and come out the same.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from workflows.graph import Given, Node, Output, nodes_of
from workflows.layout import GAP, Group, Layout, placed

CANVAS_ONLY = ("MarkdownNote", "control_after_generate")  # nodes and widgets that the queue never sees
PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
(VERSION,) = re.findall(r'^version = "(.+)"', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
OUR_NODES = {"cnr_id": "npnet-golden-noise", "ver": VERSION}
CORE_NODES = {"cnr_id": "comfy-core", "ver": "0.3.64"}

COLORS = {  # title and body, from ComfyUI's menu
    "blue": {"color": "#223", "bgcolor": "#335"},
    "red": {"color": "#322", "bgcolor": "#533"},
    "green": {"color": "#232", "bgcolor": "#353"},
    "yellow": {"color": "#432", "bgcolor": "#653"},
}
SCREEN = (1420, 850)  # pixels; an older ComfyUI opens a graph at the scale at which it fits into this
APP_INPUTS = {  # what App mode lets one set, in this order
    "PrimitiveStringMultiline": ["value"],
    "CLIPTextEncode": ["text"],
    "EmptyLatentImage": ["width", "height", "batch_size"],
    "EmptySD3LatentImage": ["width", "height", "batch_size"],
    "RandomNoise": ["noise_seed"],
    "PrimitiveInt": ["value"],
    "KSampler": ["seed"],
}
APP_OUTPUTS = ("SaveImage", "PreviewImage")
INPUTS, OUTPUTS = -10, -20  # ids of the two ends of a subgraph
END = (120, 60)  # pixels; their size


def numbered(layout: Layout) -> dict[Node, int]:
    """Node → id, from 1: every node after those it is linked to, else as they stand; those inside of nodes last."""
    ids: dict[Node, int] = {}

    def visit(node: Node) -> None:
        for value in node.inputs.values():
            if isinstance(value, Output):
                visit(value.node)
        ids.setdefault(node, len(ids) + 1)

    nodes = nodes_of(layout)
    insides = [nodes_of(node.inside.layout) for node in nodes if node.inside]
    for node in chain(nodes, *insides):
        visit(node)
    return ids


def name_of(template: str) -> str:
    """The same uuid for the same words."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"npnet-golden-noise/{template}"))


# ---- the queue ------------------------------------------------------------------------------------------------------


def queue_graph(layout: Layout) -> dict:
    """The graph in API format: ``{id: {"class_type", "inputs", "_meta"}}``; "7:12" is inside of 7."""
    ids = numbered(layout)

    def value_of(value, outer: Node | None):
        if isinstance(value, Given):
            return value_of(outer.inputs[value.name], None)
        if not isinstance(value, Output):
            return value
        node, slot = value
        if node.inside:
            return value_of(list(node.inside.outputs.values())[slot], node)
        return [path(node, outer), slot]

    def path(node: Node, outer: Node | None) -> str:
        return f"{ids[outer]}:{ids[node]}" if outer else str(ids[node])

    graph = {}
    for node, outer in _flat(layout):
        sockets, widgets, _ = node.signature
        names = [name for name in [*sockets, *widgets] if name in node.inputs and name not in CANVAS_ONLY]
        graph[path(node, outer)] = {
            "class_type": node.type,
            "inputs": {name: value_of(node.inputs[name], outer) for name in names},
            "_meta": {"title": node.title or node.type},
        }
    return dict(sorted(graph.items(), key=lambda item: [int(number) for number in item[0].split(":")]))


def _flat(layout: Layout, outer: Node | None = None) -> Iterator[tuple[Node, Node | None]]:
    """(node, the node that it is inside of) of everything that the queue sees."""
    for node in nodes_of(layout):
        if node.inside:
            yield from _flat(node.inside.layout, node)
        elif node.type not in CANVAS_ONLY:
            yield node, outer


# ---- the canvas -----------------------------------------------------------------------------------------------------


class Link(NamedTuple):
    """By ids and places, as ComfyUI writes it."""

    id: int
    origin_id: int
    origin_slot: int
    target_id: int
    target_slot: int
    type: str


def canvas_graph(name: str, layout: Layout) -> dict:
    """The graph in UI format 0.4."""
    ids = numbered(layout)
    nodes, links, groups, definitions = _canvas(layout, ids)
    last_link = max((link["id"] for inside in definitions for link in inside["links"]), default=len(links))
    width, height = layout.size
    scale = round(min(1, SCREEN[0] / width, SCREEN[1] / height), 2)
    return {
        "id": name_of(name),
        "revision": 0,
        "last_node_id": len(ids),
        "last_link_id": last_link,
        "nodes": nodes,
        "links": [list(link) for link in links],
        "groups": groups,
        **({"definitions": {"subgraphs": definitions}} if definitions else {}),
        "config": {},
        "extra": {"ds": {"scale": scale, "offset": [GAP, 3 * GAP]}, "linearData": _app(ids, nodes_of(layout))},
        "version": 0.4,
    }


def blueprint_graph(node: Node, description: str, aliases: list[str]) -> dict:
    """A graph of one node with a graph inside, and what the search shows of it and finds it by."""
    graph = canvas_graph(node.title, node)
    (definition,) = graph["definitions"]["subgraphs"]
    definition["description"] = description
    return {**graph, "extra": {"BlueprintDescription": description, "BlueprintSearchAliases": aliases}}


def _app(ids: dict[Node, int], nodes: list[Node]) -> dict[str, list]:
    """What App mode shows of a graph: widgets to set, nodes whose pictures come out."""
    inputs = [
        [ids[node], name]
        for kind, names in APP_INPUTS.items()
        for node in nodes
        if node.type == kind
        for name in names
        if not node.is_linked(name)
    ]
    return {"inputs": inputs, "outputs": [ids[node] for node in nodes if node.type in APP_OUTPUTS]}


def _canvas(
    layout: Layout, ids: dict[Node, int], outer: Node | None = None, first_link: int = 1
) -> tuple[list[dict], list[Link], list[dict], list[dict]]:
    """Nodes, links, groups and definitions of subgraphs: of a graph, or of the one inside of `outer`."""
    places = placed(layout)
    ends = [(node, slot) for node in sorted(nodes_of(layout), key=ids.get) for slot in node.slots]
    ends = [(node, slot) for node, slot in ends if node.is_linked(slot)]
    links = {end: _link(number, *end, ids, outer) for number, end in enumerate(ends, start=first_link)}
    if outer:
        for slot, output in enumerate(outer.inside.outputs.values()):
            number = first_link + len(links)
            links[slot] = Link(number, ids[output.node], output.slot, OUTPUTS, slot, output.type)
    definitions = {}
    next_link = first_link + len(links)
    for node in sorted(nodes_of(layout), key=ids.get):
        if node.inside:
            definitions[node], next_link = _definition(node, ids, next_link)
    nodes = [
        _canvas_node(at, ids[at.item], links, outer, definitions.get(at.item))
        for at in places
        if isinstance(at.item, Node)
    ]
    groups = [
        {"id": number, "title": at.item.title, "bounding": [*at[1:]], "color": "#3f789e", "font_size": 24}
        for number, at in enumerate((at for at in places if isinstance(at.item, Group)), start=1)
    ]
    return sorted(nodes, key=lambda node: node["id"]), [*links.values()], groups, [*definitions.values()]


def _link(number: int, node: Node, name: str, ids: dict[Node, int], outer: Node | None) -> Link:
    value, place = node.inputs[name], list(node.slots).index(name)
    if isinstance(value, Given):
        return Link(number, INPUTS, list(outer.slots).index(value.name), ids[node], place, node.slots[name])
    return Link(number, ids[value.node], value.slot, ids[node], place, value.type)


def _definition(node: Node, ids: dict[Node, int], first_link: int) -> tuple[dict, int]:
    """The graph inside of a node, and the first link id that is free after it."""
    layout = node.inside.layout
    nodes, links, groups, _ = _canvas(layout, ids, node, first_link)
    (width, height), last_link = layout.size, max(link.id for link in links)

    def end(slots: dict[str, str], x: int, origin_or_target: str, number: int) -> tuple[dict, list[dict]]:
        box = [x, (height - END[1]) // 2, *END]
        described = [
            {
                "id": name_of(f"{node.title}/{number}/{name}"),
                "name": name,
                "type": kind,
                "linkIds": [
                    link.id
                    for link in links
                    if getattr(link, f"{origin_or_target}_id") == number
                    and getattr(link, f"{origin_or_target}_slot") == place
                ],
                "pos": [x + 20, box[1] + 20 * place + 20],
            }
            for place, (name, kind) in enumerate(slots.items())
        ]
        return {"id": number, "bounding": box}, described

    input_node, inputs = end(node.slots, -END[0] - 2 * GAP, "origin", INPUTS)
    output_node, outputs = end(node.signature.outputs, width + 2 * GAP, "target", OUTPUTS)
    content = {
        "version": 1,
        "state": {
            "lastGroupId": len(groups),
            "lastNodeId": max(inner["id"] for inner in nodes),
            "lastLinkId": last_link,
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": node.title,
        "inputNode": input_node,
        "outputNode": output_node,
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": nodes,
        "groups": groups,
        "links": [link._asdict() for link in links],
        "extra": {},
    }
    return {"id": name_of(json.dumps(content)), **content}, last_link + 1


def _canvas_node(at, number: int, links: dict[Any, Link], outer: Node | None, definition: dict | None) -> dict:
    node = at.item
    inputs = []
    for name, kind in node.slots.items():
        slot = {"name": name, "type": kind}
        if name in node.signature.widgets:
            slot["widget"] = {"name": name}
        inputs.append({**slot, "link": links[node, name].id if (node, name) in links else None})
    properties = {}
    if not definition and node.type not in CANVAS_ONLY:
        properties = {"Node name for S&R": node.type, **(OUR_NODES if node.type.startswith("NPNet") else CORE_NODES)}
    if node.files:
        keys = ("name", "url", "directory")
        properties["models"] = [{key: getattr(file, key) for key in keys} for file in node.files]
    return {
        "id": number,
        "type": definition["id"] if definition else node.type,
        "pos": [at.x, at.y],
        "size": [at.width, at.height],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": [
            {
                "name": name,
                "type": kind,
                "links": [link.id for link in links.values() if (link.origin_id, link.origin_slot) == (number, slot)],
            }
            for slot, (name, kind) in enumerate(node.signature.outputs.items())
        ],
        **({"title": node.title} if node.title else {}),
        "properties": properties,
        "widgets_values": [_widget_value(node, name, outer) for name in node.signature.widgets],
        **COLORS.get(node.color, {}),
    }


def _widget_value(node: Node, name: str, outer: Node | None):
    """What a widget shows; a linked one shows what it is given, or the first widget of the node it is linked to."""
    if name == "control_after_generate":
        return node.inputs.get(name, "fixed")
    value = node.inputs[name]
    if isinstance(value, Given):
        return _widget_value(outer, value.name, None)
    if isinstance(value, Output):
        return _widget_value(value.node, next(iter(value.node.signature.widgets)), outer)
    return value
