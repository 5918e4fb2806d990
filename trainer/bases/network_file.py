"""A transformer from one file of ComfyUI's diffusion_models or checkpoints folder; all else comes from a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from npnet_core.errors import InputError
from trainer.bases.single_file import UNET, check_not_gguf, check_weights, incomplete, read_metadata

LEFT_OUT = ("norm_final.weight",)  # of Z-Image's original layout, which nothing computes with


def load_network_file(cls: type, path: Path, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A transformer from one file, in its original layout or in diffusers'. What a checkpoint holds beside it
    (``first_stage_model.``, ``text_encoders.``) is not read.

    Args:
        cls: diffusers' class.
        folder: with its config in ``transformer/``.

    Raises:
        InputError: the weights are quantised, are not all there, or there are others.
        OSError, ValueError, RuntimeError: what the loaders raise otherwise.
    """
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    check_not_gguf(path)
    tensors = load_single_file_checkpoint(str(path))
    if checkpoint := {key: tensor for key, tensor in tensors.items() if key.startswith(UNET)}:
        tensors = checkpoint
    check_weights(path, tensors, read_metadata(path))
    try:
        network = cls.from_single_file(
            dict(tensors), config=str(folder), subfolder="transformer", dtype=dtype, local_files_only=True
        )
    except (KeyError, NotImplementedError) as error:  # of a conversion, and of weights without data
        raise incomplete(path, "its transformer") from error
    empty = next((name for name, weight in network.named_parameters() if weight.is_meta), None)
    if empty is not None:
        raise incomplete(path, f"its transformer ({empty})")
    theirs = sum(tensor.numel() for key, tensor in tensors.items() if key.removeprefix(UNET) not in LEFT_OUT)
    ours = sum(tensor.numel() for tensor in network.state_dict().values())
    if theirs != ours:
        raise InputError(
            f"{path} holds {theirs:,} numbers where a {cls.__name__} of this config has {ours:,}: name the file of a "
            "transformer, and the config of a model of the same kind."
        )
    return network
