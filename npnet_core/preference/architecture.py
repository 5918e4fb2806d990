"""The sizes of a model with an image and a text tower, as open_clip writes them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import InputError

LARGEST = 2**20  # of any size; the models here stay below 2**16


def _check_sizes(sizes) -> None:
    """Raise InputError unless all are whole numbers that a network can have, at most 1000 of them layers."""
    for name, size in dataclasses.asdict(sizes).items():
        if type(size) is not int or not 1 <= size <= (1000 if name == "layers" else LARGEST):
            raise InputError(
                f"{type(sizes).__name__} has {name} = {size!r}: give a whole number of at least 1, no larger than a "
                "network can be."
            )


@dataclass(frozen=True)
class Vision:
    """The image tower: sides in pixels, widths in features."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    head_width: int = 64

    def __post_init__(self) -> None:
        _check_sizes(self)
        if self.width % self.head_width or self.image_size < self.patch_size:
            raise InputError(
                f"An image tower {self.width} wide has heads of {self.head_width} and reads {self.image_size} pixels "
                f"in patches of {self.patch_size}: give a width that heads divide, and images of one patch or more."
            )


@dataclass(frozen=True)
class Text:
    """The text tower: lengths in tokens, widths in features."""

    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int

    def __post_init__(self) -> None:
        _check_sizes(self)
        if self.width % self.heads or self.vocab_size < 3:
            raise InputError(
                f"A text tower {self.width} wide has {self.heads} heads and {self.vocab_size} words: give a width that "
                "the heads divide, and at least 3 words."
            )


@dataclass(frozen=True)
class Architecture:
    """Towers whose feed-forward layers are four times as wide, and the width of what both are projected to."""

    embed_dim: int
    vision_cfg: Vision
    text_cfg: Text
    quick_gelu: bool = False  # x·sigmoid(1.702 x), in OpenAI's own weights

    def __post_init__(self) -> None:
        if type(self.embed_dim) is not int or not 1 <= self.embed_dim <= LARGEST or type(self.quick_gelu) is not bool:
            raise InputError(
                f"A preference model has embed_dim = {self.embed_dim!r} and quick_gelu = {self.quick_gelu!r}: give a "
                "whole number of at least 1 that a network can have, and true or false."
            )

    @classmethod
    def from_dict(cls, config: dict) -> Architecture:
        """From an open_clip-style config.

        Raises:
            InputError: for a key that is missing or unknown, and for sizes that make no network.
        """
        try:
            vision, text = Vision(**config["vision_cfg"]), Text(**config["text_cfg"])
            return cls(**{**config, "vision_cfg": vision, "text_cfg": text})
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The config of a preference model is not open_clip's ({error}): give embed_dim, vision_cfg "
                f"({_names(Vision)}) and text_cfg ({_names(Text)})."
            ) from error

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def _names(kind: type) -> str:
    return ", ".join(field.name for field in dataclasses.fields(kind))


VIT_H = Architecture(1024, Vision(224, 14, 1280, 32, head_width=80), Text(77, 49408, 1024, 24, heads=16))
VIT_L = Architecture(768, Vision(224, 14, 1024, 24), Text(77, 49408, 768, 12, heads=12), quick_gelu=True)
BLIP_L = Architecture(256, Vision(224, 16, 1024, 24), Text(35, 30524, 768, 12, heads=12))
