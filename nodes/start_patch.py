"""Patches of a MODEL that change the noise which sampling starts from: OUTER_SAMPLE wrappers, one on a model."""

from __future__ import annotations

import math
from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..npnet_core.errors import InputError

GOLDEN, REDENOISE = "npnet", "npnet_redenoise"
NODES = {GOLDEN: "NPNet Golden Noise (Model)", REDENOISE: "Re-denoise (Model)"}  # by the key of their wrapper


def patched(model: ModelPatcher, key: str, wrapper: Callable) -> ModelPatcher:
    """A clone of a model with a patch.

    Raises:
        InputError: if another patch changes the start already.
    """
    for other in (GOLDEN, REDENOISE):
        if model.get_wrappers(WrappersMP.OUTER_SAMPLE, other) and REDENOISE in (key, other):
            raise InputError(
                f"{NODES[other]} came before {NODES[key]}, and both change the noise that sampling starts from: use "
                "one of them."
            )
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, wrapper)
    return model


def unpatched(model: ModelPatcher) -> ModelPatcher:
    """A clone of a model without such patches: its noise is used as it comes."""
    model = model.clone()
    for key in NODES:
        model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, key)
    return model


def starts_from_noise(model_sampling, sigmas: Tensor, latent_image: Tensor) -> bool:
    """Whether nothing but noise is there at the first step: full noise level, or an empty latent.

    The empty latent counts by itself because the ``ddim_uniform`` schedule never begins at the highest sigma.
    """
    # as Sampler.max_denoise, which packs replace by what wants a model at work
    sigma, highest = float(sigmas[0]), float(model_sampling.sigma_max)
    return sigma > highest or math.isclose(sigma, highest, rel_tol=1e-5) or not latent_image.any()
