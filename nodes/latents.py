"""Noise of images, in whatever form ComfyUI holds it."""

from __future__ import annotations

from torch import Tensor

from ..npnet_core.errors import InputError

NESTED = "A nested latent came, [batch, channels, height, width] was expected: golden noise is for images only."


def image_noise(noise: Tensor) -> Tensor:
    """Noise or latents [B, C, H, W] of what a sampler holds, which for some models is films of one frame.

    Args:
        noise: [B, C, H, W], or [B, C, 1, H, W] as of Krea-2, Qwen-Image and Anima; any other form comes back as it is.

    Raises:
        InputError: for a nested latent, or more than one frame.
    """
    if noise.is_nested:
        raise InputError(NESTED)
    if noise.ndim != 5:
        return noise
    if noise.shape[2] != 1:
        raise InputError(
            f"Noise of {noise.shape[2]} frames came, one frame was expected: golden noise is for images only, so use a "
            "latent of length 1."
        )
    return noise[:, :, 0]
