"""Load a base model: find its family, read its parts, refuse what cannot be used."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from npnet_core.errors import InputError
from trainer.bases.base import PARTS, Base
from trainer.bases.families import FAMILIES
from trainer.bases.folder import class_of, find_folder, load_folder, load_part, weighted
from trainer.bases.load_errors import loading
from trainer.bases.lora import add_lora
from trainer.bases.memory import settle
from trainer.bases.network_file import load_network_file
from trainer.bases.single_file import load_single_file
from trainer.distributed import find_device

log = logging.getLogger(__name__)

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_base(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str | torch.device = "cpu",
    precision: str | None = None,
    lora: str | Path | None = None,
    controlnet: str | Path | None = None,
    distilled: bool | None = None,
    parts: Sequence[str] = tuple(PARTS),
) -> Base:
    """Load a base model of one of :data:`trainer.bases.families.FAMILIES`.

    Args:
        source: a diffusers folder, a single file (an SD or SDXL; of a flow model its transformer), or a hub id
            (``owner/name``), which is fetched if the hub's cache does not have it yet. Folders and hub ids are read
            from safetensors only.
        config: for a single file only, which holds neither tokenizer nor settings: a diffusers folder or hub id of a
            model of the same kind.
        device: where the network predicts, and where its parts go, on a GPU that does not hold them together each in
            its turn.
        precision: ``fp32``, ``fp16`` or ``bf16``; None for fp32 on the CPU and elsewhere the family's half precision,
            fp16 or for flow models bf16. An autoencoder that overflows in it (``force_upcast``) stays in fp32.
        lora: a LoRA file for an SD or SDXL (LCM, PCM, Lightning), added to the weights at full strength.
        controlnet: a ControlNet for an SD or SDXL, folder or hub id.
        distilled: whether guidance is built into the weights; None for what the model's files say.
        parts: those of :data:`trainer.bases.base.PARTS` that go to the device; the others stay on the CPU until they
            are moved.

    Raises:
        InputError: nothing is there, it cannot be read, or it is a model of another kind.
    """
    log.info("Loading %s.", source)
    import diffusers

    device = find_device(str(device))
    if precision not in (None, *PRECISIONS):
        raise InputError(f"There is no precision {precision!r}: use one of {', '.join(PRECISIONS)}.")
    single_file = Path(source).is_file()
    if single_file and config is None:
        raise InputError(
            f"{source} is a single file, which holds neither tokenizer nor settings: name a diffusers folder or hub id "
            "of a model of the same kind as its config (--base-config)."
        )
    described = str(config if single_file else source)
    index = read_index(described)
    family = find_family(described, index)
    precision = precision or ("fp32" if device.type == "cpu" else family.half)
    dtype = PRECISIONS[precision]
    if single_file and not (family.takes_single_files or family.takes_network_files):
        raise InputError(
            f"{source} is a single file, but {family.title} is read from diffusers folders: name a folder."
        )
    cls = getattr(diffusers, family.pipeline)
    with loading(source):
        named = [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]
        settings = [name for name in named if name.startswith(("tokenizer", "scheduler"))]
        if single_file and family.takes_network_files:
            others = [name for name in weighted(index) if name not in PARTS["network"]]
            folder = find_folder(described, others, settings)
            network = load_network_file(class_of(index, "transformer"), Path(source), folder, dtype)
            pipe = load_folder(cls, folder, index, dtype, described, {"transformer": network}, **family.load_options)
        elif single_file:
            pipe = load_single_file(cls, Path(source), described, dtype, **family.load_options)
        else:
            folder = find_folder(source, weighted(index), settings)
            pipe = load_folder(cls, folder, index, dtype, str(source), **family.load_options)
    if pipe.vae.config.get("force_upcast") and precision != "fp32":
        pipe.vae.to(torch.float32)
    if distilled is None:
        # as diffusers has it for its later pipelines; private where a pipeline has no such setting
        distilled = index.get("is_distilled", index.get("_is_distilled"))
    base = family(str(source), pipe, device, controlnet and _load_controlnet(controlnet, dtype), distilled)
    _check_fits(base)
    if lora is not None:
        _add_lora(base, Path(lora))
    return settle(base, parts)


def read_index(source: str) -> dict:
    """The ``model_index.json`` of a diffusers folder or hub id.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from diffusers import DiffusionPipeline

    if not Path(source).is_dir() and not HUB_ID.fullmatch(source):
        raise InputError(
            f"There is no base model {source}: name a diffusers folder, a single-file checkpoint or a hub id "
            "(owner/name)."
        )
    with loading(source):
        return DiffusionPipeline.load_config(source, local_files_only=Path(source).is_dir())


def find_family(source: str, index: dict) -> type[Base]:
    """The family of a model, from what its ``model_index.json`` says of the parts.

    Raises:
        InputError: it is of no family.
    """
    parts = {name: value[1] for name, value in index.items() if isinstance(value, list)}
    said = parts | {"_class_name": index.get("_class_name")}
    for family in FAMILIES:
        if all(said.get(name) == part for name, part in family.components.items()):
            return family
    for family in FAMILIES:
        if family.components.get("_class_name") == said["_class_name"]:
            lacking = [f"{name} ({part})" for name, part in family.components.items() if said.get(name) != part]
            raise InputError(
                f"{source} lacks a part that {family.title} models need, {', '.join(lacking)}: get the model whole, or "
                "choose another base model."
            )
    *others, last = (family.title for family in FAMILIES)
    raise InputError(
        f"{source} is of the class {index.get('_class_name')}, with {', '.join(filter(None, parts.values()))}, which "
        f"cannot be used: choose an {', '.join(others)} or {last} text-to-image model."
    )


def _load_controlnet(source: str | Path, dtype: torch.dtype) -> nn.Module:
    from diffusers import ControlNetModel

    if Path(source).is_file() or not (Path(source).is_dir() or HUB_ID.fullmatch(str(source))):
        raise InputError(
            f"There is no ControlNet folder {source}: name a diffusers folder, with a config.json in it, or a hub id "
            "(owner/name); single files are not read."
        )
    with loading(source):
        return load_part(ControlNetModel, find_folder(source, [""]), dtype, str(source))


def _add_lora(base: Base, lora: Path) -> None:
    if not base.takes_additions:
        raise InputError(f"LoRAs are not supported for {base.title} models such as {base.source}: leave it out.")
    if not lora.is_file():
        raise InputError(f"There is no LoRA file {lora}: name a safetensors file.")
    with loading(lora):
        add_lora(base, lora)


def check_tokenizers(base: Base) -> None:
    """Raise InputError for a tokenizer without its vocabulary, which is no error to transformers 5."""
    for name in PARTS["text"]:
        encoder = getattr(base.pipe, name, None)
        if encoder is None:
            continue
        tokenizer = getattr(base.pipe, name.replace("text_encoder", "tokenizer"))
        words = getattr(encoder.config, "text_config", encoder.config).vocab_size  # multimodal: a config within
        if len(tokenizer) < words / 2:
            raise InputError(
                f"{base.source} has a tokenizer of {len(tokenizer)} words for a text encoder of {words}: the "
                "tokenizer's files are missing, so download it again."
            )


def _check_fits(base: Base) -> None:
    check_tokenizers(base)
    base.check()
    latent = base.pipe.vae.config.latent_channels
    if base.channels != latent:
        raise InputError(
            f"{base.source} takes {base.channels} channels where its autoencoder makes {latent}, as models for "
            "inpainting or editing do: choose a text-to-image model."
        )
    if base.controlnet is not None:
        _check_controlnet(base)


def _check_controlnet(base: Base) -> None:
    if not base.takes_additions:
        raise InputError(f"ControlNets are not supported for {base.title} models such as {base.source}: leave it out.")
    if base.controlnet.config.get("global_pool_conditions"):  # Shuffle's: they steer one branch and not the other
        raise InputError("A ControlNet that pools its picture (Shuffle) is not supported here: choose another.")
    ours, theirs = (network.config.cross_attention_dim for network in (base.controlnet, base.network))
    if ours != theirs:
        raise InputError(
            f"The ControlNet is made for prompts {ours} wide and {base.source} has them {theirs} wide: choose one made "
            "for this kind of model."
        )
