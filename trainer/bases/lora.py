"""LoRAs, added to the weights of an SD or SDXL as they were trained.

Not by diffusers: where the alphas of a file differ, its loader (0.42) scales some layers by another's, and keys that it
cannot place it passes over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from npnet_core.errors import InputError, first_of
from npnet_core.tensorfile import read_tensors
from trainer.bases.base import Base
from trainer.bases.original_layout import original_name

# NAME.lora_down.weight of kohya's scripts, NAME.lora_A.weight of peft, and diffusers' three of before peft
MATRIX = re.compile(r"(?P<name>.+?)[._]lora(_linear_layer)?[._](?P<role>down|A|up|B)(\.default)?\.weight")
ALPHA = re.compile(r"(?P<name>.+)\.(?P<role>alpha)")
ROLES = {"A": "down", "B": "up"}

# what is trained like a LoRA and added in another way
OTHERS = {
    "DoRA": r"dora_scale|lora_magnitude_vector",
    "LoHa": r"\.hada_",
    "LoKr": r"\.lokr_",
    "OFT or BOFT": r"\.b?oft_",
    "GLoRA": r"\.[ab][12]\.weight$",
    "(IA)³": r"\.on_input$",
    "LoCon with a third matrix": r"\.lora_mid\.",
    "differences of whole weights": r"\.(diff|diff_b|w_norm|b_norm|set_weight|reshape_weight)$",
    "biases": r"\.bias$",
    "trained words": r"^(bundle_emb\.|emb_params)",
    "a ControlNet": r"^lora_controlnet",
}
PEFT_OTHERS = (
    *("use_dora", "use_rslora", "alpha_pattern", "lora_bias", "fan_in_fan_out", "modules_to_save"),
    *("layer_replication", "trainable_token_indices", "use_qalora"),
)
# peft's ways to begin that take something away from the weights to which the matrices are added
PEFT_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
REMEDY = "which is not supported here: choose a plain LoRA, or merge it into the base model where it was trained"


def add_lora(base: Base, path: Path) -> None:
    """W + (alpha / rank) · up · down for each layer that the file names; alpha is the rank where nothing says it.

    Args:
        path: a file of kohya's scripts, diffusers or peft, for the UNet and its text encoders.

    Raises:
        InputError: it is none, another kind of adapter, or has layers that the base model does not have.
    """
    tensors, metadata = read_tensors(path)
    for kind, pattern in OTHERS.items():
        if key := next((key for key in tensors if re.search(pattern, key)), None):
            raise InputError(f"{path} is no plain LoRA but {kind} ({key}), {REMEDY}.")
    tensors |= peft_alphas(path, tensors, metadata)

    layers, found, left = layers_by_name(base), {}, []
    for key, tensor in tensors.items():
        match = MATRIX.fullmatch(key) or ALPHA.fullmatch(key)
        layer = match and layers.get(match["name"].replace(".processor.", "."))
        role = match and ROLES.get(match["role"], match["role"])
        if layer is None or role in found.get(layer, {}):
            left.append(key)
        else:
            found.setdefault(layer, {})[role] = tensor
    if not found:
        raise InputError(f"{path} has no weights for {base.source}: choose a LoRA made for this kind of model.")
    if left:
        raise InputError(
            f"{path} has weights that {base.source} has no place for ({first_of(left)}): choose a LoRA made for this "
            "kind of model."
        )
    for layer, parts in found.items():
        _add(layer, parts, path)


def peft_alphas(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """``NAME.alpha`` of each layer, from :func:`peft_settings`; empty without them.

    Raises:
        InputError: for settings under which the matrices are added in another way.
    """
    settings = peft_settings(path, tensors, metadata)
    for name, value in settings.items():
        start = name.endswith("init_lora_weights") and str(value).lower().startswith(PEFT_STARTS)
        if start or (value and name.endswith(PEFT_OTHERS)):
            raise InputError(f"{path} is no plain LoRA ({name}: {value}), {REMEDY}.")
    names = {match["name"] for match in map(MATRIX.fullmatch, tensors) if match}
    for_all = settings.get("lora_alpha")
    alphas = {name: settings.get(f"{name.split('.')[0]}.lora_alpha", for_all) for name in names}
    return {f"{name}.alpha": torch.tensor(float(alpha)) for name, alpha in alphas.items() if alpha is not None}


def peft_settings(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict:
    """What diffusers writes into the file, by part (``unet.lora_alpha``) or for all of it, or peft beside it; else
    empty.

    Raises:
        InputError: the file is peft's and has lost its settings.
    """
    if "lora_adapter_metadata" in metadata:
        return json.loads(metadata["lora_adapter_metadata"])
    if not any(key.startswith("base_model.model.") for key in tensors):
        return {}
    file = path.with_name("adapter_config.json")
    if not file.is_file():
        raise InputError(
            f"{path} was saved by peft, which writes how strong its matrices are into {file.name}, and there is none "
            "beside it: put the one there that it came with."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def layers_by_name(base: Base) -> dict[str, nn.Module]:
    """Every name that LoRA files have for the layers of a base model."""
    layers = {}
    for name, layer in _layers(base.network):
        attention = hasattr(base.network.get_submodule(".".join(name.split(".")[:2])), "attentions")
        original = original_name(name, base.network.config.layers_per_block, attention)
        for alias in (name, name.removesuffix(".0") if name.endswith("to_out.0") else name):
            layers |= {
                f"{prefix}{alias}": layer for prefix in ("", "unet.", "base_model.model.", "unet.base_model.model.")
            }
        layers |= {
            prefix + each.replace(".", "_"): layer for prefix in ("lora_unet_", "lycoris_") for each in (name, original)
        }
    encoders = {"text_encoder": ("lora_te_", "lora_te1_"), "text_encoder_2": ("lora_te2_",)}
    for part, prefixes in encoders.items():
        for name, layer in _layers(getattr(base.pipe, part, None) or nn.Module()):
            full = "text_model." + name.removeprefix("text_model.")
            for alias in (name, full, re.sub(r"self_attn\.(q|k|v|out)_proj", r"self_attn.to_\1", full)):
                layers[f"{part}.{alias}"] = layer
            layers |= {prefix + each.replace(".", "_"): layer for prefix in prefixes for each in (name, full)}
    return layers


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, each) for name, each in module.named_modules() if isinstance(each, (nn.Linear, nn.Conv2d)))


@torch.no_grad()
def _add(layer: nn.Module, parts: dict[str, Tensor], path: Path) -> None:
    """Convolutions too: ``down`` [r, i, k, k] and ``up`` [o, r, 1, 1] are one matrix [o, i · k · k]."""
    weight = layer.weight
    if not {"down", "up"} <= parts.keys():
        raise InputError(f"{path} has only one of a layer's two matrices: it is damaged, get it again.")
    if whole := next((part.dtype for part in (parts["down"], parts["up"]) if not part.is_floating_point()), None):
        raise InputError(f"{path} is no plain LoRA but quantised (to {str(whole).removeprefix('torch.')}), {REMEDY}.")
    down, up = (parts[role].float().flatten(1) for role in ("down", "up"))
    rank = len(down)
    if (len(up), up.shape[1], rank * down.shape[1]) != (len(weight), rank, rank * weight[0].numel()):
        raise InputError(
            f"{path} has matrices of {list(parts['up'].shape)} and {list(parts['down'].shape)} for weights of "
            f"{list(weight.shape)}: choose a LoRA made for this kind of model."
        )
    scale = parts["alpha"].item() / rank if "alpha" in parts else 1.0
    change = scale * (up @ down)
    if not change.isfinite().all():
        raise InputError(f"{path} has NaN or infinite weights: its training diverged or it is damaged, choose another.")
    weight.copy_(weight.float() + change.reshape(weight.shape).to(weight.device))
