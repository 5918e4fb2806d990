"""Which base models are told apart, and by what ComfyUI knows of each. The only table of it."""

from __future__ import annotations

from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher

KEYS = ("conditioning_mt5xl", "conditioning_llama3", "t5xxl_ids")  # of a second text encoder, which only some have


@dataclass(frozen=True)
class Family:
    """What a family's prompts, latents and models look like in a graph.

    Args:
        title: as users call it.
        width: of a prompt token.
        channels: of a latent.
        pooled: widths of the pooled embedding beside the prompt; None stands for none at all.
        key: which of :data:`KEYS` stands beside the prompt.
        frames: whether ComfyUI holds its latents as films of one frame, [B, C, 1, H, W].
        image_models: ``image_model`` of ComfyUI's ``unet_config``, which UNets and SD3 have none of.
    """

    title: str
    width: int
    channels: int
    pooled: tuple[int | None, ...] = (None,)
    key: str | None = None
    frames: bool = False
    image_models: tuple[str | None, ...] = (None,)


# comfy/supported_models.py, comfy/latent_formats.py and comfy/text_encoders/; Qwen-Image 2.1 as 0.38 has it
FAMILIES = {
    "sdxl": Family("SDXL", 2048, 4, (1280,)),
    "hunyuan-dit": Family(
        "HunyuanDiT", 1024, 4, (None, 1024), key="conditioning_mt5xl", image_models=("hydit", "hydit1")
    ),
    "sd1": Family("Stable Diffusion 1.x", 768, 4, (768, None)),
    "sd2": Family("Stable Diffusion 2.x", 1024, 4, (1024, None)),
    "sd3": Family("Stable Diffusion 3.x", 4096, 16, (2048,)),
    "flux": Family("FLUX.1", 4096, 16, (768,), image_models=("flux",)),
    "z-image": Family("Z-Image", 2560, 16, image_models=("lumina2",)),
    "qwen-image": Family("Qwen-Image", 3584, 16, frames=True, image_models=("qwen_image",)),
    "qwen-image-2.1": Family("Qwen-Image 2.1", 4096, 64, image_models=("qwen_image21",)),
    "krea-2": Family("Krea-2", 30720, 16, frames=True, image_models=("krea2",)),
    "anima": Family("Anima", 1024, 16, key="t5xxl_ids", frames=True, image_models=("anima",)),
}


@dataclass(frozen=True)
class Base:
    """What is known of the base model beside its prompts. The defaults stand for nothing.

    Args:
        shape: of its noise, [B, C, H, W] or [B, C, 1, H, W].
        image_model: as in :class:`Family`, None included.
    """

    shape: tuple[int, ...] | None = None
    image_model: str | None = "any"


def base_of(model: ModelPatcher, shape: tuple[int, ...]) -> Base:
    """What a MODEL that samples noise of this shape is known to be."""
    return Base(tuple(shape), model.model.model_config.unet_config.get("image_model"))


def family_of(entry: dict, base: Base) -> str | None:
    """The family of a conditioning's entry and the base model that it goes with; None for one that is not known here.

    Args:
        entry: embedding [B, T, D] under ``cross_attn``, what stands beside it as ComfyUI names it.
    """
    pooled = entry.get("pooled_output")
    for name, family in FAMILIES.items():
        if (
            entry["cross_attn"].shape[2] == family.width
            and (None if pooled is None else pooled.shape[-1]) in family.pooled
            and all((key in entry) == (key == family.key) for key in KEYS)
            and (base.shape is None or (base.shape[1], len(base.shape) == 5) == (family.channels, family.frames))
            and (base.image_model == "any" or base.image_model in family.image_models)
        ):
            return name
    return None


def is_another(base: Base, family: str) -> bool:
    """Whether ``image_model`` alone tells that a model is no such family's."""
    return base.image_model not in (None, "any", *FAMILIES[family].image_models)


def title(family: str | None) -> str:
    """What users call a family; a name of their own as it is."""
    if family is None:
        return "another base model's"
    return FAMILIES[family].title if family in FAMILIES else family


def model_title(base: Base) -> str:
    """What users call a model, as far as its ``image_model`` tells."""
    if base.image_model in (None, "any"):
        return "another base model"
    titles = (family.title for family in FAMILIES.values() if base.image_model in family.image_models)
    return next(titles, base.image_model)
