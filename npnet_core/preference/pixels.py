"""Images as users have them → the pixels that each preference model was trained on.

Published scores are scores of saved images, so both ways begin by rounding to 8 bits. Both resize with antialiasing, on
the device where the images are, and differ in the rest (below). Rounding has no gradient: with ``rounded=False`` values
are only kept in 0..1, in the images' own precision if that is finer than fp32.

- HPSv2 and v2.1 resize in floating point so that the *longest* side fits, let bicubic overshoot stand, and pad with
  black: all of the image is seen.
- All others do what PIL does: the *shortest* side fits, with 8 bits after each of the two passes, and the centre is cut
  out.

torchvision antialiases tensors since 0.17. Before, HPSv2's own code did not, which moved the pixels of noisy images by
up to 8/255, and scores with them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# OpenAI's CLIP, and with it every model here.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def pad_to_square(images: Tensor, size: int, *, rounded: bool = True) -> Tensor:
    """Images [B, H, W, 3] in 0..1 → normalised pixels [B, 3, size, size], as HPSv2's package does it."""
    pixels = images.movedim(-1, 1)
    pixels = eight_bits(pixels.float()) if rounded else at_least_fp32(pixels)
    scale = size / max(pixels.shape[-2:])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[-2:])
    if scale != 1:
        pixels = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    top, left = (size - height) // 2, (size - width) // 2
    return normalise(F.pad(pixels, (left, size - width - left, top, size - height - top)))


def crop_to_square(images: Tensor, size: int, *, as_torchvision: bool = False, rounded: bool = True) -> Tensor:
    """Images [B, H, W, 3] in 0..1 → normalised pixels [B, 3, size, size], as CLIP's processor does it.

    Args:
        as_torchvision: where a centre lies between two pixels, CLIP's processor takes the first and torchvision's crop,
            which ImageReward and the aesthetic predictor used, the even one: at 1216x832 that is another cut.
    """
    pixels = images.movedim(-1, 1)
    pixels = eight_bits(pixels.float()) if rounded else at_least_fp32(pixels)
    shortest = min(pixels.shape[-2:])
    height, width = (int(size * side / shortest) for side in pixels.shape[-2:])
    if shortest != size:
        for sides in ((pixels.shape[-2], width), (height, width)):  # along the rows first, as PIL does
            pixels = F.interpolate(pixels, sides, mode="bicubic", antialias=True)
            pixels = eight_bits(pixels) if rounded else pixels.clamp(0, 1)
    top, left = (round(extra / 2) if as_torchvision else extra // 2 for extra in (height - size, width - size))
    return normalise(pixels[..., top : top + size, left : left + size])


def eight_bits(pixels: Tensor) -> Tensor:
    """Rounded to 255ths and clamped to 0..1, any shape."""
    return pixels.mul(255).round_().clamp_(0, 255).div_(255)


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision becomes fp32, fp64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def normalise(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in 0..1 → in standard deviations of what CLIP was trained on."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels - mean) / std
