"""DINOv2's features of pictures, from a transformers folder that the user names. Nothing is downloaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from npnet_core.errors import InputError
from npnet_core.preference.pixels import eight_bits
from trainer.bases.folder import load_part
from trainer.bases.load_errors import loading
from trainer.evaluation.diversity import Measure, cosine

CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}  # by a config's model_type
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


@dataclass(frozen=True)
class Dino:
    """A folder such as that of facebook/dinov2-base, loaded when its turn comes.

    Raises:
        InputError: for a folder that lacks one of :data:`FILES`.
    """

    folder: Path

    def __post_init__(self) -> None:
        if missing := [name for name in FILES if not (self.folder / name).is_file()]:
            raise InputError(
                f"{self.folder} has no {' and no '.join(missing)}: give a transformers folder, such as that of "
                "facebook/dinov2-base."
            )

    def load(self, device: torch.device) -> Measure:
        """The distance between features: of a picture the class token behind the last norm, [B, D].

        Args:
            device: where it computes.

        Raises:
            InputError: for another model, or a folder that is damaged.
        """
        import transformers

        with loading(self.folder):
            config, processing = (json.loads((self.folder / name).read_text(encoding="utf-8")) for name in FILES[:2])
            if (kind := config.get("model_type")) not in CLASSES:
                raise InputError(f"{self.folder} holds a model of type {kind}: give one of {', '.join(CLASSES)}.")
            shortest, side = processing["size"]["shortest_edge"], processing["crop_size"]["height"]
            mean, std = (torch.tensor(processing[f"image_{name}"])[:, None, None] for name in ("mean", "std"))
            model = load_part(getattr(transformers, CLASSES[kind]), self.folder, torch.float32, str(self.folder))
        model.requires_grad_(False).eval().to(device)

        def embed(images: Tensor) -> Tensor:
            pixels = (centre(images, shortest, side) - mean) / std
            return model(pixel_values=pixels.to(device)).pooler_output

        return Measure("dino", embed, cosine)


def centre(images: Tensor, shortest: int, side: int) -> Tensor:
    """Pictures [B, H, W, 3] in 0..1 → [B, 3, side, side]: the shortest side is made so long, as PIL does it, and the
    centre is cut out."""
    pixels = images.movedim(-1, 1)
    height, width = (max(side, int(shortest * each / min(pixels.shape[-2:]))) for each in pixels.shape[-2:])
    for sides in ((pixels.shape[-2], width), (height, width)):  # along the rows first, 8 bits after each
        pixels = eight_bits(F.interpolate(pixels, sides, mode="bicubic", antialias=True))
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side]
