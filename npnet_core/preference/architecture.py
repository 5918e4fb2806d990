"""The sizes of a model with an image and a text tower, as open_clip writes them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Vision:
    image_size: int
    patch_size: int
    width: int
    layers: int
    head_width: int = 64


@dataclass(frozen=True)
class Text:
    context_length: int
    vocab_size: int
    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Architecture:
    """Towers whose feed-forward layers are four times as wide, and the width of what both are projected to."""

    embed_dim: int
    vision_cfg: Vision
    text_cfg: Text
    quick_gelu: bool = False  # x·sigmoid(1.702 x), in OpenAI's own weights

    @classmethod
    def from_dict(cls, config: dict) -> Architecture:
        """From an open_clip-style config.

        Raises:
            InputError: for a key that is missing or unknown.
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
