"""How published files name the weights of each network: the only file that knows their keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .aesthetic import AestheticPredictor
from .architecture import Architecture
from .clip import CLIP
from .image_reward import ImageReward
from .mps import MPS
from .shapes.detectors import ConvolutionalDetector, SeparableDetector


@dataclass(frozen=True)
class Stored:
    """Where a file has one parameter of ours: under which key, as which third of it, and whether transposed."""

    key: str
    third: int | None = None
    transposed: bool = False

    def shape(self, ours: torch.Size) -> tuple[int, ...]:
        """The shape of the file's tensor."""
        if self.third is not None:
            return (3 * ours[0], *ours[1:])
        return tuple(reversed(ours)) if self.transposed else tuple(ours)

    def cut(self, tensor: Tensor) -> Tensor:
        """Our parameter, out of the file's tensor."""
        if self.third is not None:
            return tensor.chunk(3)[self.third]
        return tensor.T if self.transposed else tensor


@dataclass(frozen=True)
class Layout:
    """A way to write a network.

    Attributes:
        title: for people.
        network: what it holds the weights of.
        mark: a key begins with this in files of this layout and of none before it in :data:`LAYOUTS`.
        stored: our key → where the file has it.
        unused: beginnings and ends of keys that published files have and nothing reads.
    """

    title: str
    network: Callable[[Architecture | None], nn.Module]
    mark: str
    stored: Callable[[str], Stored]
    unused: tuple[str, ...] = ("position_ids",)

    def reads(self, key: str) -> bool:
        return not key.startswith(self.unused) and not key.endswith(self.unused)

    def shapes(self, architecture: Architecture | None) -> dict[str, tuple[int, ...]]:
        """Shape by key of a file whose network has this architecture."""
        with torch.device("meta"):
            state = self.network(architecture).state_dict()
        return {stored.key: stored.shape(state[key].shape) for key in state for stored in [self.stored(key)]}


OPEN_CLIP_NAMES = {
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}

BLIP_VISION_NAMES = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "encoder.layers": "blocks",
    "self_attn.qkv": "attn.qkv",
    "self_attn.projection": "attn.proj",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "post_layernorm": "norm",
}


def _renamed(key: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        key = key.replace(ours, theirs)
    return key


def in_open_clip(key: str) -> Stored:
    key = key.removeprefix("clip.")
    for third, name in enumerate(("q_proj.", "k_proj.", "v_proj.")):
        before, found, end = key.partition("self_attn." + name)
        if found:
            return Stored(_renamed(before, OPEN_CLIP_NAMES) + "attn.in_proj_" + end, third=third)
    return Stored(_renamed(key, OPEN_CLIP_NAMES), transposed=key.endswith("_projection.weight"))


def in_transformers(key: str) -> Stored:
    return Stored(key.removeprefix("clip."))


def in_aesthetic(key: str) -> Stored:
    return Stored(key.removeprefix("tower.").removeprefix("head."))


def in_image_reward(key: str) -> Stored:
    part, _, key = key.partition(".")
    if part == "vision":
        return Stored("blip.visual_encoder." + _renamed(key, BLIP_VISION_NAMES))
    return Stored({"text": "blip.text_encoder.", "head": "mlp."}[part] + key)


def in_mps(key: str) -> Stored:
    if key.startswith("clip."):
        return Stored("model." + key.removeprefix("clip."))
    _, layer, block, rest = key.split(".", 3)
    return Stored(f"cross_model.layers.{layer}.{block}.fn.{rest}")


OPEN_CLIP = Layout("open_clip's", CLIP, "visual.transformer.resblocks.", in_open_clip)
IMAGE_REWARD = Layout(
    "ImageReward's",
    ImageReward,
    "blip.visual_encoder.",
    in_image_reward,
    ("position_ids", "blip.vision_proj.", "blip.text_proj."),
)
MPS_LAYOUT = Layout("MPS's", MPS, "cross_model.", in_mps, ("position_ids", ".norm.bias", ".inv_freq"))
# The published file has the head alone; converted, the image tower is in it.
AESTHETIC = Layout(
    "the aesthetic predictor's",
    AestheticPredictor,
    "layers.0.",
    in_aesthetic,
    ("position_ids", "text_model.", "text_projection.", "logit_scale"),
)
TRANSFORMERS = Layout("transformers' CLIP", CLIP, "vision_model.", in_transformers)
SHAPES_A = Layout("the shapes world's", lambda _: ConvolutionalDetector(), "mass.", Stored, ())
SHAPES_B = Layout("the shapes world's", lambda _: SeparableDetector(), "evidence.", Stored, ())
LAYOUTS = (OPEN_CLIP, IMAGE_REWARD, MPS_LAYOUT, AESTHETIC, TRANSFORMERS, SHAPES_A, SHAPES_B)
