"""ComfyUI graphs written down in Python: nodes, the links between them, and graphs inside nodes.

Links are what nodes are given as inputs, so a graph needs no ids: `formats` numbers it when it writes a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from workflows.layout import GRID, Layout, Placed, placed

# pixels
NODE_TITLE = 30  # stands above a node's position
BADGE = 30  # what Nodes 2.0 puts below: the name of a pack, the button that opens a subgraph


class Signature(NamedTuple):
    """What a node has, name → type in ComfyUI's order; sockets are inputs that are links only."""

    sockets: dict[str, str]
    widgets: dict[str, str]
    outputs: dict[str, str]


def _signature(text: str) -> Signature:
    """sockets | widgets | outputs; what has no name of its own is called as its type."""
    parts = ({word.split(":")[0]: word.split(":")[-1] for word in part.split()} for part in text.split("|"))
    return Signature(*parts)


SIGNATURES = {
    "BasicScheduler": "model:MODEL | scheduler:COMBO steps:INT denoise:FLOAT | SIGMAS",
    "CFGGuider": "model:MODEL positive:CONDITIONING negative:CONDITIONING | cfg:FLOAT | GUIDER",
    "CheckpointLoaderSimple": "| ckpt_name:COMBO | MODEL CLIP VAE",
    "CLIPLoader": "| clip_name:COMBO type:COMBO device:COMBO | CLIP",
    "CLIPTextEncode": "clip:CLIP | text:STRING | CONDITIONING",
    "ConditioningZeroOut": "conditioning:CONDITIONING | | CONDITIONING",
    "DualCLIPLoader": "| clip_name1:COMBO clip_name2:COMBO type:COMBO device:COMBO | CLIP",
    "EmptyLatentImage": "| width:INT height:INT batch_size:INT | LATENT",
    "EmptySD3LatentImage": "| width:INT height:INT batch_size:INT | LATENT",
    "ImageScale": "image:IMAGE | upscale_method:COMBO width:INT height:INT crop:COMBO | IMAGE",
    "KSampler": "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT"
    " | seed:INT control_after_generate steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO denoise:FLOAT | LATENT",
    "KSamplerSelect": "| sampler_name:COMBO | SAMPLER",
    "MarkdownNote": "| text:STRING |",
    "ModelSamplingAuraFlow": "model:MODEL | shift:FLOAT | MODEL",
    "NPNetHPSFilter": "scorer:NPNET_SCORER source_images:IMAGE target_images:IMAGE noise_pair:NOISE_PAIR"
    " | prompt:STRING margin:FLOAT | pair:NOISE_PAIR kept:BOOLEAN source_scores:FLOAT target_scores:FLOAT"
    " preferred:IMAGE report:STRING",
    "NPNetLoad": "| npnet_name:COMBO | npnet:NPNET",
    "NPNetModelPatch": "model:MODEL npnet:NPNET | strength:FLOAT long_prompt:COMBO | model:MODEL",
    "NPNetNoise": "npnet:NPNET noise:NOISE conditioning:CONDITIONING | strength:FLOAT long_prompt:COMBO | noise:NOISE",
    "NPNetPickBest": "scorer:NPNET_SCORER images:IMAGE latents:LATENT | prompt:STRING k:INT"
    " | best:IMAGE best_latents:LATENT indices:INT scores:FLOAT",
    "NPNetRedenoisePair": "model:MODEL positive:CONDITIONING negative:CONDITIONING noise:NOISE sigmas:SIGMAS"
    " latent_image:LATENT redenoise_model:MODEL"
    " | cfg:FLOAT inversion_cfg:FLOAT rounds:INT inversion:COMBO depth:INT"
    " | source:NOISE target:NOISE pair:NOISE_PAIR",
    "NPNetRedenoisePatch": "model:MODEL redenoise_model:MODEL"
    " | cfg:FLOAT inversion_cfg:FLOAT depth:INT inversion:COMBO | model:MODEL",
    "NPNetSavePair": "noise_pair:NOISE_PAIR | prompt:STRING dataset:STRING base_model:STRING sampling:STRING"
    " | report:STRING",
    "NPNetScorerLoad": "| scorer_name:COMBO kind:COMBO | scorer:NPNET_SCORER",
    "NPNetSmallPipelineLoad": "| pipeline:COMBO | MODEL CLIP VAE",
    "PreviewImage": "images:IMAGE | |",
    "PrimitiveInt": "| value:INT control_after_generate | INT",
    "PrimitiveStringMultiline": "| value:STRING | STRING",
    "RandomNoise": "| noise_seed:INT control_after_generate | NOISE",
    "SamplerCustomAdvanced": "noise:NOISE guider:GUIDER sampler:SAMPLER sigmas:SIGMAS latent_image:LATENT"
    " | | output:LATENT denoised_output:LATENT",
    "SamplerCustom": "model:MODEL positive:CONDITIONING negative:CONDITIONING sampler:SAMPLER sigmas:SIGMAS"
    " latent_image:LATENT | add_noise:BOOLEAN noise_seed:INT control_after_generate cfg:FLOAT"
    " | output:LATENT denoised_output:LATENT",
    "SaveImage": "images:IMAGE | filename_prefix:STRING |",
    "SDTurboScheduler": "model:MODEL | steps:INT denoise:FLOAT | SIGMAS",
    "UNETLoader": "| unet_name:COMBO weight_dtype:COMBO | MODEL",
    "VAEDecode": "samples:LATENT vae:VAE | | IMAGE",
    "VAELoader": "| vae_name:COMBO | VAE",
}


@dataclass(frozen=True)
class ModelFile:
    """A file on Hugging Face that a loader needs, its folder below models/, and the one that it is in there, if any."""

    name: str
    repo: str
    directory: str
    size: str
    folder: str = ""

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.folder}{self.name}"


@dataclass(frozen=True, eq=False)
class Subgraph:
    """The graph inside a node; its nodes are given :class:`Given` where something comes in."""

    layout: Layout
    outputs: dict[str, Output]


@dataclass(frozen=True, eq=False)
class Node:
    """One node. An input is a widget's value, an :class:`Output` or, in a subgraph, :class:`Given`.

    ``node["CLIP"]`` is one of its own outputs.
    """

    type: str
    signature: Signature
    inputs: dict[str, Any]
    title: str
    color: str
    files: tuple[ModelFile, ...]
    width: int
    room: int  # height for the text or picture inside
    inside: Subgraph | None = None

    def __getitem__(self, output: str) -> Output:
        return Output(self, list(self.signature.outputs).index(output))

    @property
    def slots(self) -> dict[str, str]:
        """Name → type of the inputs that have a dot on the canvas: the sockets, then linked and subgraphs' widgets."""
        sockets, widgets, _ = self.signature
        linked = {name: widgets[name] for name in widgets if self.inside or self.is_linked(name)}
        return {**sockets, **linked}

    def is_linked(self, name: str) -> bool:
        return isinstance(self.inputs.get(name), Output | Given)

    @property
    def height(self) -> int:
        """Without the title."""
        sockets, widgets, outputs = self.signature
        rows = 20 * max(len(sockets), len(outputs))
        height = rows + (24 * len(widgets) + 14 if widgets else 6) + self.room
        return -(-height // GRID) * GRID

    @property
    def size(self) -> tuple[int, int]:
        badge = BADGE if self.inside or self.type.startswith("NPNet") else 0
        return self.width, NODE_TITLE + self.height + badge

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        yield Placed(self, x, y + NODE_TITLE, width, self.height)


class Output(NamedTuple):
    """Where a link begins."""

    node: Node
    slot: int

    @property
    def type(self) -> str:
        return list(self.node.signature.outputs.values())[self.slot]


class Given(NamedTuple):
    """What the subgraph's input of this name is given."""

    name: str


def node(
    node_type: str,
    /,
    *,
    title: str = "",
    color: str = "",
    files: tuple[ModelFile, ...] = (),
    box: tuple[int, int] = (270, 0),
    **inputs: Any,
) -> Node:
    """A node and its inputs; a node given as an input stands for its first output.

    `box` is its least width, and the height of the text or picture inside.
    """
    signature = _signature(SIGNATURES[node_type])
    if unknown := inputs.keys() - {*signature.sockets, *signature.widgets}:
        raise TypeError(f"{node_type} has no input {', '.join(sorted(unknown))}")
    return Node(node_type, signature, _linked(inputs), title, color, files, *box)


def subgraph(
    title: str, layout: Layout, outputs: dict[str, Node | Output], /, *, box: tuple[int, int] = (270, 0), **inputs: Any
) -> Node:
    """A node with a graph inside, whose nodes take :class:`Given` for these inputs."""
    takers = {
        value.name: (name, inner.signature)
        for inner in nodes_of(layout)
        for name, value in inner.inputs.items()
        if isinstance(value, Given)
    }
    if takers.keys() != inputs.keys():
        raise TypeError(f"{title} is given {sorted(inputs)} and takes {sorted(takers)}")
    sockets, widgets = {}, {}
    for name in inputs:
        taken_as, (their_sockets, their_widgets, _) = takers[name]
        kinds, theirs = (sockets, their_sockets) if taken_as in their_sockets else (widgets, their_widgets)
        kinds[name] = theirs[taken_as]
    outputs = _linked(outputs)
    signature = Signature(sockets, widgets, {name: output.type for name, output in outputs.items()})
    return Node("", signature, _linked(inputs), title, "", (), *box, Subgraph(layout, outputs))


def nodes_of(layout: Layout) -> list[Node]:
    """The nodes of a layout, without those inside of them."""
    return [item for item, *_ in placed(layout) if isinstance(item, Node)]


def _linked(values: dict[str, Any]) -> dict[str, Any]:
    return {name: Output(value, 0) if isinstance(value, Node) else value for name, value in values.items()}
