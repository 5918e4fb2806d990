"""ComfyUI graphs written down in Python, and their two JSON forms: for the canvas (UI format 0.4) and for the queue.

A graph is its layout: nodes in rows, columns and groups. Links are what nodes are given as inputs, places are computed,
so the files can be written again at any time and come out the same.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# Node → its sockets | its widgets | its outputs, in ComfyUI's order; what has no name of its own is called as its type.
SIGNATURES = {
    "BasicScheduler": "model:MODEL | scheduler steps denoise | SIGMAS",
    "CFGGuider": "model:MODEL positive:CONDITIONING negative:CONDITIONING | cfg | GUIDER",
    "CheckpointLoaderSimple": "| ckpt_name | MODEL CLIP VAE",
    "CLIPTextEncode": "clip:CLIP | text | CONDITIONING",
    "ConditioningZeroOut": "conditioning:CONDITIONING | | CONDITIONING",
    "EmptyLatentImage": "| width height batch_size | LATENT",
    "KSampler": "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT"
    " | seed control_after_generate steps cfg sampler_name scheduler denoise | LATENT",
    "KSamplerSelect": "| sampler_name | SAMPLER",
    "MarkdownNote": "| text |",
    "NPNetHPSFilter": "scorer:NPNET_SCORER source_images:IMAGE target_images:IMAGE noise_pair:NOISE_PAIR"
    " | prompt margin | pair:NOISE_PAIR kept:BOOLEAN source_scores:FLOAT target_scores:FLOAT"
    " preferred:IMAGE report:STRING",
    "NPNetLoad": "| npnet_name | npnet:NPNET",
    "NPNetModelPatch": "model:MODEL npnet:NPNET | strength long_prompt | model:MODEL",
    "NPNetNoise": "npnet:NPNET noise:NOISE conditioning:CONDITIONING | strength long_prompt | noise:NOISE",
    "NPNetPickBest": "scorer:NPNET_SCORER images:IMAGE latents:LATENT | prompt k"
    " | best:IMAGE best_latents:LATENT indices:INT scores:FLOAT",
    "NPNetRedenoisePair": "model:MODEL positive:CONDITIONING negative:CONDITIONING noise:NOISE sigmas:SIGMAS"
    " latent_image:LATENT | cfg inversion_cfg rounds inversion depth | source:NOISE target:NOISE pair:NOISE_PAIR",
    "NPNetSavePair": "noise_pair:NOISE_PAIR | prompt dataset base_model sampling | report:STRING",
    "NPNetScorerLoad": "| scorer_name kind | scorer:NPNET_SCORER",
    "PreviewImage": "images:IMAGE | |",
    "PrimitiveInt": "| value control_after_generate | INT",
    "PrimitiveStringMultiline": "| value | STRING",
    "RandomNoise": "| noise_seed control_after_generate | NOISE",
    "SamplerCustomAdvanced": "noise:NOISE guider:GUIDER sampler:SAMPLER sigmas:SIGMAS latent_image:LATENT"
    " | | output:LATENT denoised_output:LATENT",
    "SaveImage": "images:IMAGE | filename_prefix |",
    "VAEDecode": "samples:LATENT vae:VAE | | IMAGE",
}
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

# pixels
GRID = 10
GAP = 30
PADDING = 20  # between a group's frame and its nodes
NODE_TITLE = 30  # stands above a node's position
GROUP_TITLE = 40
SCREEN = (1420, 850)  # a graph opens at the scale at which it fits into this


@dataclass(frozen=True)
class ModelFile:
    """A file on Hugging Face that a loader needs, and its folder below models/."""

    name: str
    repo: str
    directory: str
    size: str

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.name}"


# ---- nodes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Node:
    """One node. An input is a widget's value or an :class:`Output`; ``node["CLIP"]`` is one of its own outputs."""

    type: str
    inputs: dict[str, Any]
    title: str
    color: str
    file: ModelFile | None
    width: int
    room: int  # height for the text or picture inside

    @property
    def sockets(self) -> dict[str, str]:
        """Name → type of the inputs that are links only."""
        return _named(SIGNATURES[self.type].split("|")[0])

    @property
    def widgets(self) -> list[str]:
        return SIGNATURES[self.type].split("|")[1].split()

    @property
    def outputs(self) -> dict[str, str]:
        """Name → type."""
        return _named(SIGNATURES[self.type].split("|")[2])

    @property
    def slots(self) -> list[str]:
        """The inputs that have a dot on the canvas: the sockets, then linked widgets."""
        return [*self.sockets, *(name for name in self.widgets if isinstance(self.inputs.get(name), Output))]

    def __getitem__(self, output: str) -> Output:
        return Output(self, list(self.outputs).index(output))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, title included."""
        rows = 20 * max(len(self.sockets), len(self.outputs))
        height = rows + (24 * len(self.widgets) + 14 if self.widgets else 6) + self.room
        return self.width, NODE_TITLE + -(-height // GRID) * GRID

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        yield Placed(self, x, y + NODE_TITLE, width, self.size[1] - NODE_TITLE)


class Output(NamedTuple):
    """Where a link begins."""

    node: Node
    slot: int

    @property
    def type(self) -> str:
        return list(self.node.outputs.values())[self.slot]


def node(
    node_type: str,
    /,
    *,
    title: str = "",
    color: str = "",
    file: ModelFile | None = None,
    box: tuple[int, int] = (270, 0),
    **inputs: Any,
) -> Node:
    """A node and its inputs; a node given as an input stands for its first output.

    `box` is its least width, and the height of the text or picture inside.
    """
    inputs = {name: Output(value, 0) if isinstance(value, Node) else value for name, value in inputs.items()}
    made = Node(node_type, inputs, title, color, file, *box)
    if unknown := inputs.keys() - {*made.sockets, *made.widgets}:
        raise TypeError(f"{node_type} has no input {', '.join(sorted(unknown))}")
    return made


def _named(words: str) -> dict[str, str]:
    return {word.split(":")[0]: word.split(":")[-1] for word in words.split()}


# ---- layout ---------------------------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """A node without its title, or a group, and its rectangle."""

    item: Node | Group
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """Side by side, each as wide as it is."""

    items: tuple[Layout, ...]

    @property
    def size(self) -> tuple[int, int]:
        widths, heights = zip(*(item.size for item in self.items), strict=True)
        return sum(widths) + GAP * (len(widths) - 1), max(heights)

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        for item in self.items:
            yield from item.place(x, y, item.size[0])
            x += item.size[0] + GAP


@dataclass(frozen=True)
class Column:
    """One below the other, all as wide as the column."""

    items: tuple[Layout, ...]

    @property
    def size(self) -> tuple[int, int]:
        widths, heights = zip(*(item.size for item in self.items), strict=True)
        return max(widths), sum(heights) + GAP * (len(heights) - 1)

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        for item in self.items:
            yield from item.place(x, y, width)
            y += item.size[1] + GAP


@dataclass(frozen=True)
class Group:
    """A frame with a title."""

    title: str
    inside: Layout

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.inside.size
        return width + 2 * PADDING, GROUP_TITLE + height + PADDING

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        yield Placed(self, x, y, width, self.size[1])
        yield from self.inside.place(x + PADDING, y + GROUP_TITLE, width - 2 * PADDING)


Layout = Node | Row | Column | Group


def row(*items: Layout) -> Row:
    return Row(items)


def column(*items: Layout) -> Column:
    return Column(items)


def group(title: str, *items: Layout) -> Group:
    """A frame around a column."""
    return Group(title, Column(items))


def placed(layout: Layout) -> list[Placed]:
    return list(layout.place(0, 0, layout.size[0]))


# ---- files ----------------------------------------------------------------------------------------------------------


def numbered(layout: Layout) -> dict[Node, int]:
    """Node → id, from 1: every node after those it is linked to, else as they stand in the layout."""
    ids: dict[Node, int] = {}

    def visit(node: Node) -> None:
        for value in node.inputs.values():
            if isinstance(value, Output):
                visit(value.node)
        ids.setdefault(node, len(ids) + 1)

    for item, *_ in placed(layout):
        if isinstance(item, Node):
            visit(item)
    return ids


def queue_graph(layout: Layout) -> dict:
    """The graph in API format: ``{id: {"class_type", "inputs", "_meta"}}``."""
    ids = numbered(layout)

    def value_of(value):
        return [str(ids[value.node]), value.slot] if isinstance(value, Output) else value

    return {
        str(number): {
            "class_type": node.type,
            "inputs": {
                name: value_of(node.inputs[name])
                for name in [*node.sockets, *node.widgets]
                if name in node.inputs and name not in CANVAS_ONLY
            },
            "_meta": {"title": node.title or node.type},
        }
        for node, number in ids.items()
        if node.type not in CANVAS_ONLY
    }


def canvas_graph(name: str, layout: Layout) -> dict:
    """The graph in UI format 0.4."""
    ids = numbered(layout)
    ends = [(node, slot) for node in ids for slot in node.slots if slot in node.inputs]
    link_ids = {end: number for number, end in enumerate(ends, start=1)}
    width, height = layout.size
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"npnet-golden-noise/{name}")),
        "revision": 0,
        "last_node_id": len(ids),
        "last_link_id": len(link_ids),
        "nodes": sorted(
            (_canvas_node(at, ids[at.item], link_ids) for at in placed(layout) if isinstance(at.item, Node)),
            key=lambda node: node["id"],
        ),
        "links": [_canvas_link(number, *end, ids) for end, number in link_ids.items()],
        "groups": [
            {"id": number, "title": at.item.title, "bounding": [*at[1:]], "color": "#3f789e", "font_size": 24}
            for number, at in enumerate((at for at in placed(layout) if isinstance(at.item, Group)), start=1)
        ],
        "config": {},
        "extra": {
            "ds": {
                "scale": round(min(1, SCREEN[0] / width, SCREEN[1] / height), 2),
                "offset": [GAP, 3 * GAP],
            }
        },
        "version": 0.4,
    }


def _canvas_link(number: int, node: Node, name: str, ids: dict[Node, int]) -> list:
    output = node.inputs[name]
    return [number, ids[output.node], output.slot, ids[node], node.slots.index(name), output.type]


def _canvas_node(at: Placed, number: int, link_ids: dict[tuple[Node, str], int]) -> dict:
    node = at.item
    inputs = []
    for name in node.slots:
        linked = node.inputs.get(name)
        slot = {"name": name, "type": node.sockets.get(name) or linked.type}
        if name in node.widgets:
            slot["widget"] = {"name": name}
        inputs.append({**slot, "link": link_ids.get((node, name))})
    properties = {}
    if node.type not in CANVAS_ONLY:
        properties = {"Node name for S&R": node.type, **(OUR_NODES if node.type.startswith("NPNet") else CORE_NODES)}
    if node.file:
        properties["models"] = [{key: getattr(node.file, key) for key in ("name", "url", "directory")}]
    return {
        "id": number,
        "type": node.type,
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
                "links": [
                    link
                    for (target, input_name), link in link_ids.items()
                    if target.inputs[input_name] == Output(node, slot)
                ],
            }
            for slot, (name, kind) in enumerate(node.outputs.items())
        ],
        **({"title": node.title} if node.title else {}),
        "properties": properties,
        "widgets_values": [_widget_value(node, name) for name in node.widgets],
        **COLORS.get(node.color, {}),
    }


def _widget_value(node: Node, name: str):
    """What a widget shows; a linked one shows the first widget of the node that it is linked to."""
    if name == "control_after_generate":
        return node.inputs.get(name, "fixed")
    value = node.inputs[name]
    return _widget_value(value.node, value.node.widgets[0]) if isinstance(value, Output) else value
