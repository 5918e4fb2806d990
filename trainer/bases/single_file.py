"""Single-file checkpoints: what the file says of itself is honoured or refused, and nothing in it is left unread."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from npnet_core.errors import InputError, first_of
from npnet_core.tensorfile import INTEGERS, is_safetensors

UNET = "model.diffusion_model."
VAE = ("first_stage_model.", "vae.")
TEXT = ("cond_stage_model.", "conditioner.embedders.0.", "conditioner.embedders.1.")
HOLDS = {"UNet": (UNET,), "autoencoder": VAE, "text encoder": TEXT}
GUIDANCE = f"{UNET}time_embed.cond_proj.weight"
MARKERS = ("v_pred", "ztsnr")
V = {"v", "v_prediction", "velocity"}
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")  # Playground 2.5, CosXL

# how weights are called that are not simply numbers
QUANTISED = {
    "in ComfyUI's layouts": r"\.(comfy_quant|weight_scale_2)$",
    "to fp8 with scales": r"(^|\.)scaled_fp8$|\.(scale_weight|weight_scale|scale_input|input_scale)$",
    "by bitsandbytes": r"\.(absmax|quant_map|nested_absmax|nested_quant_map|SCB|quant_state\..*)$",
    "by SVDQuant, GPTQ or AWQ": r"\.(qweight|qzeros|wscales|wzeros|smooth_factor|g_idx)$",
}
# what training leaves behind, and what is computed anew
UNUSED = re.compile(
    r"(model_ema|embedding_manager|first_stage_model\.loss|first_stage_model\.model_ema)\..*|.*\.position_ids|"
    r"\w*(betas|alphas_cumprod)\w*|posterior_\w+|lvlb_weights|logvar|(denoiser\.)?sigmas|global_step|epoch|iteration"
)


def load_single_file(cls: type, path: Path, config: str, dtype: torch.dtype, **options) -> Any:
    """A pipeline with a UNet from one file in the original layout.

    Args:
        cls: diffusers' pipeline class.
        config: folder or hub id with the tokenizers and settings.
        options: of the class's ``from_single_file``.

    Raises:
        InputError: what the file holds cannot be used as it is meant.
        OSError, ValueError, RuntimeError: what the loaders raise otherwise.
    """
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    check_not_gguf(path)
    tensors, metadata = load_single_file_checkpoint(str(path)), read_metadata(path)
    check_weights(path, tensors, metadata)
    check_whole(path, tensors)
    settings = scheduler_settings(path, tensors.keys(), metadata)
    try:
        pipe = cls.from_single_file(
            str(path), config=config, dtype=dtype, local_files_only=Path(config).is_dir(), **options
        )
    except NotImplementedError as error:  # weights that the file lacks have no data, and diffusers moves them
        raise incomplete(path, "its UNet or autoencoder") from error
    check_all_filled(path, pipe)
    check_all_read(path, tensors, pipe)
    pipe.scheduler.register_to_config(**settings)  # which levels are made from
    return pipe


def check_not_gguf(path: Path) -> None:
    """Raise InputError for a GGUF file."""
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            raise _quantised(path, "as a GGUF file")


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors."""
    if not is_safetensors(path):
        return {}
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def scheduler_settings(path: Path, keys: Collection[str], metadata: Mapping[str, str]) -> dict:
    """The settings of a scheduler that a file asks for by its markers; what it does not say, its config folder decides.

    ComfyUI knows the markers too, and writes ``modelspec.predict_key``. A ``modelspec.prediction_type`` of ``epsilon``
    says nothing: sd-scripts writes it for v models of SDXL as well.

    Raises:
        InputError: it says that it is neither an epsilon nor a v model.
    """
    said = {metadata.get(f"modelspec.{name}", "").lower() for name in ("prediction_type", "predict_key")} - {""}
    process = metadata.get("modelspec.noise_process", "ddpm").lower()
    edm = [key for key in EDM if key in keys]
    if edm or process != "ddpm" or said - {"epsilon", *V}:
        what = ", ".join(edm) or f"prediction type {', '.join(sorted(said)) or 'unknown'}, noise process {process}"
        raise InputError(
            f"{path} says that it is neither an epsilon nor a v model ({what}): choose another base model."
        )
    v = "v_pred" in keys or bool(said & V)
    if "ztsnr" in keys and not v:
        raise InputError(
            f"{path} says that it starts from zero SNR (ztsnr) and not that it predicts v, which such models do: get "
            "the file again."
        )
    settings = {"prediction_type": "v_prediction"} if v else {}
    return settings | ({"rescale_betas_zero_snr": True} if "ztsnr" in keys else {})


def check_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Refuse weights that diffusers would read as something else.

    Raises:
        InputError: they are quantised, or of a UNet that is told the guidance.
    """
    if GUIDANCE in tensors:
        raise InputError(
            f"{path} is an LCM whose UNet is told the guidance, which only diffusers folders can be read for: name one."
        )
    if "_quantization_metadata" in metadata:
        raise _quantised(path, "in ComfyUI's layouts")
    for how, pattern in QUANTISED.items():
        if any(re.search(pattern, key) for key in tensors):
            raise _quantised(path, how)
    for key, tensor in tensors.items():
        if key.startswith((UNET, *VAE, *TEXT)) and not tensor.is_floating_point() and not key.endswith(INTEGERS):
            raise _quantised(path, f"to {str(tensor.dtype).removeprefix('torch.')}, as {key}")


def _quantised(path: Path, how: str) -> InputError:
    return InputError(f"{path} holds quantised weights ({how}): name the fp16, bf16 or fp32 file of the model.")


def check_whole(path: Path, keys: Collection[str]) -> None:
    """Refuse a file of one part, such as a UNet or an autoencoder alone.

    Raises:
        InputError: it names the parts that the file does not hold.
    """
    lacking = [part for part, prefixes in HOLDS.items() if not any(key.startswith(prefixes) for key in keys)]
    if lacking:
        raise InputError(
            f"{path} holds no {' and no '.join(lacking)}: name a whole checkpoint, as ComfyUI's Load Checkpoint reads "
            "it, or a diffusers folder."
        )


def check_all_filled(path: Path, pipe: Any) -> None:
    """Refuse a pipeline some of whose weights the file did not have.

    Raises:
        InputError: it names the first of them.
    """
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            empty = next((name for name, weight in module.named_parameters() if weight.is_meta), None)
            if empty is not None:
                raise incomplete(path, f"its {part} ({empty})")


def incomplete(path: Path, part: str) -> InputError:
    """What to raise for a file without some of the weights of a part."""
    return InputError(f"{path} lacks weights of {part}: get it again, or name the config of a model of the same kind.")


def check_all_read(path: Path, tensors: Mapping[str, Tensor], pipe: Any) -> None:
    """Refuse what the loader passes over in silence.

    Raises:
        InputError: the file has weights that its kind of model has no place for.
    """
    rest = {key: tensor for key, tensor in tensors.items() if not (UNUSED.fullmatch(key) or key in MARKERS)}
    unread = [key for key in rest if not key.startswith((UNET, *VAE, *TEXT))]
    for prefix, network in ((UNET, pipe.unet), (VAE, pipe.vae)):
        unread += _surplus({key: tensor for key, tensor in rest.items() if key.startswith(prefix)}, network)
    if unread:
        raise InputError(
            f"{path} holds weights that a {type(pipe).__name__} of this config has no place for ({first_of(unread)}): "
            "name the config of a model of the same kind."
        )


def _surplus(tensors: Mapping[str, Tensor], network: nn.Module) -> list[str]:
    """Keys of tensors of sizes that the file has more of than the network. Names differ between layouts, and whether a
    weight is a matrix or a convolution, but not how many numbers it has.
    """
    sizes = Counter(tensor.numel() for tensor in tensors.values())
    sizes -= Counter(tensor.numel() for tensor in network.state_dict().values())
    return [key for key, tensor in tensors.items() if tensor.numel() in sizes]
