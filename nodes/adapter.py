"""f of an adapter in a graph: one prediction of the MODEL with the adapter's patches on its weights.

What the graph does to the weights (LoRAs, merges) and to the model's sampling acts on f; its ControlNets, areas, hooks,
reference latents, attention patches, wrappers, guidance rescalers and FluxGuidance do not: f is told what it was fitted
with. Weights may be quantised, in ComfyUI's ways or in another pack's that patches them itself (ComfyUI-GGUF).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable

import comfy.lora
import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
from torch import Tensor

from ..npnet_core.adapter import SAME, Adapter, AdapterConfig, Predictor, fingerprint_distance
from ..npnet_core.errors import InputError, first_of
from .conditioning import Start, starting_entry
from .families import title
from .hunyuan_dit import hunyuan_dit_to_diffusers
from .start_patch import unpatched

log = logging.getLogger(__name__)

# What text encoders leave in a conditioning; the rest is what nodes ask of its picture.
TEXT = (
    *("pooled_output", "attention_mask", "conditioning_mt5xl", "attention_mask_mt5xl", "conditioning_llama3"),
    *("t5xxl_ids", "t5xxl_weights"),
)
OTHER_WEIGHTS = "NPNet: the adapter was fitted with other weights than this model's, which differ from them by %.0f %%."
QUANTISED = (
    "NPNet: this model is quantised: its weights differ by %.1f %% from those that the adapter was fitted with, what "
    "it predicts with the adapter by up to five times as much (measured on tiny models)."
)
PACKED = "NPNet: this model's weights are packed in another pack's way, so they were not compared with the adapter's."
# Names of diffusers' weights → ComfyUI's own, by family: functions of comfy.utils; ours where it has none
MAPS = {
    "sd": "unet_to_diffusers",  # of no published size, see small_pipeline.py
    "sd1": "unet_to_diffusers",
    "sd2": "unet_to_diffusers",
    "sdxl": "unet_to_diffusers",
    "sd3": "mmdit_to_diffusers",
    "flux": "flux_to_diffusers",
    "z-image": "z_image_to_diffusers",
}
OUR_MAPS = {"hunyuan-dit": hunyuan_dit_to_diffusers}
SQUARE = 1024  # pixels: the original size that diffusers' pipeline tells a Hunyuan-DiT, whatever the picture's


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a weight of diffusers' network is in ComfyUI's.

    Args:
        key: of its state dict.
        part: (dimension, start, length) of one that holds several, such as q, k and v.
        turned: for one whose halves ComfyUI has the other way round.
    """

    key: str
    part: tuple[int, int, int] | None = None
    turned: Callable[[Tensor], Tensor] | None = None

    @property
    def patch_key(self) -> str | tuple:
        """As ``ModelPatcher.add_patches`` takes it."""
        if self.turned is not None:
            return self.key, self.part, self.turned
        return self.key if self.part is None else (self.key, self.part)

    def numel(self, weight: Tensor) -> int:
        """Of that part."""
        if self.part is None:
            return math.prod(weight.shape)
        dimension, start, length = self.part
        sides = list(weight.shape)
        sides[dimension] = min(length, sides[dimension] - start)
        return math.prod(sides)

    def read(self, weight: Tensor) -> Tensor:
        """The weight as diffusers has it."""
        weight = weight if self.part is None else weight.narrow(*self.part)
        return weight if self.turned is None else self.turned(weight)


def predictor_of(model: ModelPatcher, conditioning: list, start: Start) -> Predictor:
    """f for the one prompt of a conditioning that stands for it when sampling starts.

    Args:
        model: the MODEL that the image is sampled with.

    Raises:
        InputError: as :func:`starting_entry`; when it predicts, as :func:`adapted` and :func:`prediction`.
    """
    entry = starting_entry(conditioning, start)

    def predict(adapter: Adapter, noise: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        told = {name: entry[name] for name in TEXT if name in entry}
        if adapter.config.family == "hunyuan-dit":
            height, width = (8 * side for side in noise.shape[-2:])
            told |= {"height": SQUARE, "width": SQUARE, "target_height": height, "target_width": width}
        guider = comfy.samplers.CFGGuider(adapted(model, adapter))
        positive = [[entry["cross_attn"], told | {"guidance": adapter.config.cfg}]]
        guider.inner_set_conds({"positive": positive})
        guider.set_cfg(1.0)
        result = {}

        def predict_once(model_k, x, sigmas, extra_args=None, callback=None, disable=None):
            sampling = guider.model_patcher.get_model_object("model_sampling")
            result["f"] = prediction(model_k, noise.to(x.device, torch.float32), adapter.config, sampling, extra_args)
            return x

        sigmas = torch.tensor([1.0, 0.0])  # the adapter's own level is what it predicts at
        sampler = comfy.samplers.KSAMPLER(predict_once)
        guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)
        return result["f"].to(noise.device, torch.float32)

    return predict


def prediction(model_k, noise: Tensor, config: AdapterConfig, sampling, extra_args: dict) -> Tensor:
    """The network's own prediction at the adapter's level, out of the denoised latent that ComfyUI makes of it.

    Args:
        noise: [B, C, H, W], unit variance: what the network is to see.

    Raises:
        InputError: for a model that predicts something else than the adapter was fitted with.
    """
    if isinstance(sampling, comfy.model_sampling.CONST):
        sigma, scale, kind = config.sigma, 1.0, "flow"
    else:
        sigma = config.sigma / math.sqrt(1 - config.sigma**2) if config.sigma < 1 else float(sampling.sigma_max)
        scale, kind = math.hypot(1, sigma), "v" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "eps"
    x = noise * scale
    denoised = model_k(x, x.new_full((len(x),), sigma), **extra_args).float()
    if kind == "v":  # denoised = x / scale² − v σ / scale
        return (x / scale**2 - denoised) * (scale / sigma)
    return (x - denoised) / sigma


def adapted(model: ModelPatcher, adapter: Adapter) -> ModelPatcher:
    """A clone of a MODEL with an adapter in its weights, without what the graph does beside them.

    Raises:
        InputError: for a model of another kind or family, or one of which ComfyUI does not say where its weights are.
    """
    config = adapter.config
    places = weight_places(model, config)
    compare(model, config, places)

    clone = unpatched(model)
    clone.model_options = {"transformer_options": {}}
    clone.wrappers = {}
    patches = adapter_patches(adapter, places)
    landed = set(clone.add_patches(patches))
    if missing := sorted(str(key) for key in patches.keys() - landed):
        raise InputError(f"ComfyUI did not take the adapter's weights for {first_of(missing)}: update ComfyUI.")
    return clone


def compare(model: ModelPatcher, config: AdapterConfig, places: dict[str, Place]) -> None:
    """Say in the log how far a model's weights are from those that the adapter was fitted with, if they are others: as
    a warning beyond :data:`SAME`, below which fp8 (e4m3) stays."""
    weights = {name: comfy.utils.get_attr(model.model, place.key) for name, place in places.items()}
    if not all(weights[name].is_floating_point() for name in config.fingerprint):
        log.warning(PACKED)
        return
    distance = fingerprint_distance(config, lambda name: original(model, places[name]))
    quantised = any(map(is_quantised, weights.values()))
    if quantised or distance > SAME:
        level = logging.WARNING if distance > SAME else logging.INFO
        log.log(level, QUANTISED if quantised else OTHER_WEIGHTS, 100 * distance)


def adapter_patches(adapter: Adapter, places: dict[str, Place]) -> dict:
    """What ``ModelPatcher.add_patches`` takes: ComfyUI's LoRA or difference for each weight, and the output layer."""
    config, prefix = adapter.config, f"{adapter.config.network}."
    tensors = {name: value.detach() for name, value in adapter.state_dict().items()}
    output = {name: places[name] for name in (f"{config.output}.weight", f"{config.output}.bias") if name in places}
    ending = ".weight" if config.rank else ""
    named = {prefix + name.removesuffix(ending): places[name].patch_key for name in config.weights}
    patches = comfy.lora.load_lora({k: v for k, v in tensors.items() if k.removeprefix(prefix) not in output}, named)
    return patches | {place.patch_key: ("set", (tensors[prefix + name],)) for name, place in output.items()}


def weight_places(model: ModelPatcher, config: AdapterConfig) -> dict[str, Place]:
    """Where the weights that an adapter changes are in a model.

    Raises:
        InputError: as :func:`adapted`.
    """
    expected = title(config.family)
    find = map_of(config.family)
    if find is None:
        raise InputError(
            f"Adapters of {expected} models cannot be used in this ComfyUI, which does not say where their weights "
            "are: use the npnet command line, or a net of another architecture."
        )
    found = find(model.model.model_config.unet_config)
    there = model.model.state_dict().keys()
    places = {name: _place(value) for name, value in found.items()}
    wanted = config.weights | {f"{config.output}.weight": config.output_shape}
    wanted |= {f"{config.output}.bias": config.output_shape[:1]}

    def fits(name: str, shape: tuple[int, ...]) -> bool:
        place = places.get(name)
        if place is None or place.key not in there:
            return False
        weight = comfy.utils.get_attr(model.model, place.key)  # a quantised one is packed in the state dict
        return place.numel(weight) == math.prod(shape)

    if other := [name for name, shape in wanted.items() if not fits(name, shape)]:
        raise InputError(
            f"The model is not of the kind that this NPNet was made of ({expected}; other weights are "
            f"{first_of(sorted(other))}): connect the {expected} model that it was fitted with, or one made from it."
        )
    return {name: places[name] for name in wanted}


def map_of(family: str) -> Callable[[dict], dict] | None:
    """The function that makes the table of where the weights of a family are, of a model's ``unet_config``."""
    return OUR_MAPS.get(family) or getattr(comfy.utils, MAPS.get(family, ""), None)


def _place(value: str | tuple) -> Place:
    """Of an entry of ComfyUI's tables: a key, or a key with the part of it and what turns it round."""
    key, *more = (value,) if isinstance(value, str) else value
    return Place(f"diffusion_model.{key}", *more)


def original(model: ModelPatcher, place: Place) -> Tensor:
    """A weight as the model was loaded, without the graph's patches, in fp32."""
    weight, _, dequantised = get_key_weight(model.model, place.key)
    if place.key in model.backup:
        weight = model.backup[place.key].weight
    if place.key in model.hook_backup:
        weight = model.hook_backup[place.key][0]
    weight = weight.float()
    return place.read(weight if dequantised is None else dequantised(weight, inplace=False))


def is_quantised(weight: Tensor) -> bool:
    """Whether a number of it takes less than two bytes, plain or packed."""
    return weight.nbytes < 2 * math.prod(weight.shape)
