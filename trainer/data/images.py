"""Images on the disk: 8-bit PNGs whose text chunk ``npnet`` says what made them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from npnet_core.atomic_write import atomic_write
from npnet_core.errors import InputError

log = logging.getLogger(__name__)

CHUNK = "npnet"


def image_stem(prompt: str, seed: int) -> str:
    """A file name's beginning that tells images of different prompts or seeds apart."""
    return f"{text_hash(prompt)}-{seed}"


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_image(path: Path, image: Tensor, metadata: dict) -> None:
    """Write one image; the file is there once it is whole.

    Args:
        path: a .png; its folder is made if need be.
        image: [H, W, 3] in 0..1, on the CPU.
        metadata: JSON values for its text chunk.

    Raises:
        InputError: for NaN, which no picture holds.
        OSError: if it cannot be written; nothing half-written stays.
    """
    from PIL import Image, PngImagePlugin

    if not image.isfinite().all():
        raise InputError(
            f"The image for {path.name} holds NaN: look at how it was sampled and decoded (a VAE in fp16 can overflow)."
        )
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CHUNK, json.dumps(metadata, ensure_ascii=False))
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        # the lightest compression: a tenth larger, and three times as fast
        Image.fromarray(pixels).save(partial, "png", pnginfo=text, compress_level=1)


def read_image(path: str | Path) -> Tensor:
    """[H, W, 3] in 0..1, fp32, of a picture of any kind: as its EXIF data turns it, 16 bits of grey as such. EXIF data
    that cannot be read turns nothing, with a warning.

    Raises:
        InputError: if it is missing, no picture, partly transparent, or of numbers whose range it does not say.
    """
    from PIL import Image

    if not Path(path).is_file():
        raise InputError(f"There is no picture {path}: check its name.")
    try:
        with Image.open(path) as picture:
            picture.load()
            return _pixels(path, picture.format, _turned(path, picture))
    except InputError:
        raise
    # PIL's word for a damaged PNG is SyntaxError
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} is damaged or no picture ({error}): get it again, or delete it if npnet made it and run again."
        ) from error


def _turned(path: str | Path, picture):
    """The ``PIL.Image.Image`` as its EXIF data turns it."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # a damaged block can break a parser anywhere, and the pixels are there already
        log.warning("%s has EXIF data that cannot be read (%s): it is taken as it lies.", path, error)
        return picture


def _pixels(path: str | Path, file_format: str, picture) -> Tensor:
    """[H, W, 3] in 0..1 of a ``PIL.Image.Image``, whose own way to RGB clips 16 bits at 255 and drops transparency."""
    import numpy as np

    if picture.mode.startswith("I;16") or (picture.mode == "I" and file_format in ("PNG", "PPM")):
        grey = torch.from_numpy(np.asarray(picture).astype(np.float32) / 65535)
        return grey[..., None].repeat(1, 1, 3)
    if picture.mode in ("I", "F"):
        raise InputError(f"{path} holds 32-bit numbers and not their range: save it with 8 or 16 bits.")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            raise InputError(
                f"{path} is partly transparent: put it onto the background that you mean (black behind a pose or "
                "edges) and save it without transparency."
            )
    return torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255


def read_images(paths: Sequence[str | Path]) -> Tensor:
    """[B, H, W, 3] in 0..1 of images of one size; raises as :func:`read_image`, and InputError for several sizes."""
    images = [read_image(path) for path in paths]
    sizes = {tuple(image.shape[:2]): path for image, path in zip(images, paths, strict=True)}
    if len(sizes) > 1:
        named = ", ".join(f"{path} {width}x{height}" for (height, width), path in sizes.items())
        raise InputError(f"Images of different sizes came ({named}): give those of one size.")
    return torch.stack(images)


def read_metadata(path: str | Path) -> dict:
    """What :func:`write_image` was told of an image; {} for a picture of other origin."""
    from PIL import Image

    with Image.open(path) as picture:
        return json.loads(picture.text.get(CHUNK, "{}")) if picture.format == "PNG" else {}
