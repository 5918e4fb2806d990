"""Pictures of other programs: their bits, palettes, inks, transparency and orientation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from npnet_core.errors import InputError
from trainer.data.images import read_image

RGB = (np.arange(6 * 8 * 3).reshape(6, 8, 3) * 37 % 256).astype(np.uint8)
GREY = RGB[..., 0]
DEEP = (np.arange(6 * 8).reshape(6, 8) * 1365).astype(np.uint16)  # 0 … 64155


def same(path, expected: np.ndarray) -> bool:
    """Whether the picture has these values, [H, W] or [H, W, 3] in 0..1."""
    image = read_image(path)
    assert image.dtype == torch.float32
    colours = expected if expected.ndim == 3 else expected[..., None].repeat(3, 2)
    return image.shape == colours.shape and (image.numpy() - colours).__abs__().max() < 1e-6


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_are_a_65535th_each(tmp_path, kind):
    """Depth maps; the same picture in 8 bits agrees to its rounding."""
    Image.fromarray(DEEP).save(tmp_path / f"deep.{kind}")
    assert same(tmp_path / f"deep.{kind}", DEEP / 65535)
    Image.fromarray((DEEP >> 8).astype(np.uint8)).save(tmp_path / "usual.png")
    assert (read_image(tmp_path / f"deep.{kind}") - read_image(tmp_path / "usual.png")).abs().max() < 1 / 255


def test_big_endian_too(tmp_path):
    Image.frombytes("I;16B", (8, 6), DEEP.astype(">u2").tobytes()).save(tmp_path / "deep.tif")
    assert same(tmp_path / "deep.tif", DEEP / 65535)


def test_grey_black_and_white_and_palettes(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    assert same(tmp_path / "grey.png", GREY / 255)
    Image.fromarray(GREY > 99).save(tmp_path / "edges.png")
    assert same(tmp_path / "edges.png", (GREY > 99).astype(float))
    indices = Image.fromarray(GREY // 64, "P")
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    indices.putpalette(colours.tobytes())
    for kind in ("png", "gif"):
        indices.save(tmp_path / f"palette.{kind}")
        assert same(tmp_path / f"palette.{kind}", colours[GREY // 64] / 255)


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0), (0, 128, 255, 0)])
def test_inks(tmp_path, ink):
    Image.new("CMYK", (8, 6), ink).save(tmp_path / "ink.tif")
    light = (1 - np.array(ink[:3]) / 255) * (1 - ink[3] / 255)
    assert (read_image(tmp_path / "ink.tif").numpy() - light).__abs__().max() < 1.1 / 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_opaque_is_a_picture_and_what_is_not_has_no_background(tmp_path, mode):
    picture = Image.fromarray(RGB if mode == "RGBA" else GREY).convert(mode)
    picture.save(tmp_path / "opaque.png")
    assert same(tmp_path / "opaque.png", (RGB if mode == "RGBA" else GREY) / 255)
    picture.putpixel((3, 2), (1, 2, 3, 200)[-len(mode) :])
    picture.save(tmp_path / "hole.png")
    with pytest.raises(InputError, match=r"hole.png is partly transparent: put it onto the background"):
        read_image(tmp_path / "hole.png")


def test_a_colour_of_a_palette_may_be_transparent(tmp_path):
    picture = Image.fromarray(GREY // 64, "P")
    picture.putpalette(bytes(range(12)))
    picture.save(tmp_path / "hole.png", transparency=1)
    with pytest.raises(InputError, match="partly transparent"):
        read_image(tmp_path / "hole.png")


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, lambda image: image[::-1, ::-1]), (6, lambda image: np.rot90(image, -1)), (8, np.rot90)],
)
def test_a_camera_s_picture_is_seen_upright(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "photo.png", exif=exif)
    assert same(tmp_path / "photo.png", np.ascontiguousarray(turn(RGB)) / 255)


def test_damaged_exif_data_turns_nothing(tmp_path, caplog):
    Image.fromarray(RGB).save(tmp_path / "photo.png", exif=b"Exif\0\0garbage")
    assert same(tmp_path / "photo.png", RGB / 255)
    assert "photo.png has EXIF data that cannot be read" in caplog.text


def test_numbers_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.full((6, 8), 3.5, np.float32)).save(tmp_path / "metres.tif")
    Image.fromarray(np.full((6, 8), 70_000, np.int32)).save(tmp_path / "micrometres.tif")
    for name in ("metres.tif", "micrometres.tif"):
        with pytest.raises(InputError, match="holds 32-bit numbers and not their range: save it with 8 or 16 bits"):
            read_image(tmp_path / name)
