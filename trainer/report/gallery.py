"""A browsable grid of image pairs: the largest gains, the middle and the largest losses, in the page itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from npnet_core.errors import InputError
from trainer.report.data_uri import data_uri
from trainer.report.page import macros

LARGEST = 320  # pixels of a thumbnail's longer side
PIXELS = 128  # images up to this are shown as they are, every pixel enlarged

GAIN, MIDDLE, LOSS, ALL = "Largest gains", "Around the middle", "Largest losses", "All pairs"


@dataclass(frozen=True)
class Picture:
    """A picture within the page.

    Args:
        label: what it is, text.
        source: a ``data:`` URI.
        width, height: in pixels of its own.
        score: text under it.
    """

    label: str
    source: str
    width: int
    height: int
    score: str = ""


@dataclass(frozen=True)
class Pair:
    """Pictures of one prompt and seed, side by side: standard first.

    Args:
        gain: what pairs are sorted by.
        words: the gain as text.
        place: the heading that it stands under, such as :data:`GAIN`.
    """

    prompt: str
    seed: int
    gain: float
    words: str
    pictures: tuple[Picture, ...]
    category: str | None = None
    place: str = ALL


@dataclass(frozen=True)
class Group:
    """Pairs of one comparison, sorted, with a text on which of all pairs they are."""

    title: str
    note: str
    pairs: tuple[Pair, ...]


def pair_grid(groups: Sequence[Group]) -> Markup:
    """All groups, one under the other. With scripts: one at a time, sorted and filtered as the reader likes."""
    return macros("gallery.html").gallery(groups, PIXELS)


def thumbnail(path: Path, label: str, score: str = "") -> Picture:
    """An image file as a picture: as it is if it is small, else a JPEG of at most :data:`LARGEST` pixels.

    Raises:
        InputError: if the file is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:  # UnidentifiedImageError too
        raise InputError(
            f"The image {path} that the scores name cannot be read ({error}): put it back, or evaluate again."
        ) from error
    if max(image.size) <= PIXELS:
        source = data_uri(image, "png", optimize=True)
    else:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        source = data_uri(image, "jpeg", quality=82, optimize=True)
    return Picture(label, source, *image.size, score)


def choose(gains: Sequence[float], each: int) -> dict[str, list[int]]:
    """Heading → positions: the ``each`` largest gains, as many around the median, the ``each`` largest losses, every
    part from high to low; all of them under one heading if there are no more than that."""
    order = sorted(range(len(gains)), key=lambda i: -gains[i])
    if len(order) <= 3 * each:
        return {ALL: order}
    middle = (len(order) - each) // 2
    return {GAIN: order[:each], MIDDLE: order[middle : middle + each], LOSS: order[-each:]}
