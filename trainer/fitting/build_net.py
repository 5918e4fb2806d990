"""The net that a fit starts from: new, an earlier one, or new with ImageNet's weights in its Swin."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from npnet_core.architectures import ARCHITECTURES, GoldenNet, new_net
from npnet_core.checkpoint import WRAPPERS, load_npnet, swin_of_today
from npnet_core.config import MENDED, Config, NPNetConfig, UNetConfig
from npnet_core.errors import InputError
from npnet_core.model import NPNet
from npnet_core.npd import NPDReader
from npnet_core.tensorfile import check_tensors, read_tensors

if TYPE_CHECKING:
    from trainer.fitting.fit import Options

log = logging.getLogger(__name__)

# Flags that shape a new net of each architecture, by their names in its config; None is what the config says.
SHAPES = {
    NPNetConfig.architecture: ("resolution", "swin_size", "swin_dim", "swin_depths", "swin_heads", "swin_window"),
    UNetConfig.architecture: ("widths", "blocks"),
}
SHAPE = tuple(name for names in SHAPES.values() for name in names)

# Further flags that not every architecture knows.
FURTHER = {
    NPNetConfig.architecture: ("without", "published_quirks", "swin_weights", "drop_path"),
    UNetConfig.architecture: (),
}

CLASSIFIER = "head."  # the prefix in an ImageNet file of what the net does not use


def starting_net(
    options: Options, reader: NPDReader, indices: Sequence[int], prompt_shape: tuple[int, int]
) -> GoldenNet:
    """New or from --init, for these pairs and prompt embeddings of shape (T, D)."""
    shapes = [reader.records[i].key.shape for i in indices]
    channels = sorted({shape[0] for shape in shapes})
    if len(channels) > 1:
        raise InputError(
            f"The pairs in {options.dataset} have {' and '.join(map(str, channels))} channels: a net takes one number "
            "of them, so make a dataset for each."
        )
    tokens, dim = prompt_shape
    given = {
        "family": reader.manifest.base_family,
        "channels": channels[0],
        "prompt_tokens": tokens,
        "prompt_dim": dim,
    }
    if options.drop_path is not None:
        given["drop_path"] = options.drop_path
    if options.init is not None:
        return fine_tuned(options.init, given, options.seed)
    given["resolution"] = common_resolution(shape[1:] for shape in shapes)
    if architecture(options) == NPNetConfig.architecture:
        given |= {
            "svd_branch": "svd" not in options.without,
            "text_term": "text" not in options.without,
            "residual_branch": "residual" not in options.without,
            **({} if options.published_quirks else MENDED),
        }
    given |= {name: getattr(options, name) for name in SHAPE if getattr(options, name) is not None}
    npnet = new_npnet(ARCHITECTURES[architecture(options)][0](**given), options.seed)
    if options.swin_weights is not None:
        load_imagenet_swin(npnet, options.swin_weights)
    return npnet


def architecture(options: Options) -> str:
    """The name of the architecture of a net that is not from --init."""
    return options.arch or NPNetConfig.architecture


def new_npnet(config: Config, seed: int) -> GoldenNet:
    """A net whose weights are drawn from ``seed``; see the architecture for where it starts."""
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        torch.manual_seed(seed)
        return new_net(config)


def fine_tuned(path: Path, config: dict, seed: int) -> GoldenNet:
    """An earlier net, to be trained further on another dataset.

    Args:
        path: an NPNet file, published ones included.
        config: the config's entries that the dataset decides (family, channels, prompt_tokens, prompt_dim), or the
            user (drop_path). Where the prompt embedding has another shape the layers that read it are made anew, which
            the log says.

    Raises:
        InputError: for a file that is no NPNet, other latent channels, or a drop_path for a net that has none.
    """
    earlier = load_npnet(path)
    if "drop_path" in config and not isinstance(earlier, NPNet):
        raise InputError(f"{path} is a net without Swin: leave --drop-path out.")
    if earlier.config.channels != config["channels"]:
        raise InputError(
            f"{path} is a net for {earlier.config.channels} latent channels and the dataset has {config['channels']}: "
            "start from another file, or without --init."
        )
    npnet = new_npnet(dataclasses.replace(earlier.config, **config), seed)
    weights = earlier.state_dict()
    anew = {key: value for key, value in npnet.state_dict().items() if value.shape != weights[key].shape}
    if anew:
        there, here = ((c.prompt_tokens, c.prompt_dim) for c in (earlier.config, npnet.config))
        words = "The text layer of %s is for prompts of %d tokens, %d wide, and here are %d, %d: it is made anew."
        log.info(words, path, *there, *here)
        layers = tuple(key.rpartition(".")[0] + "." for key in anew)
        weights |= {key: value for key, value in npnet.state_dict().items() if key.startswith(layers)}
    npnet.load_state_dict(weights)
    return npnet


def load_imagenet_swin(npnet: GoldenNet, path: Path) -> None:
    """Put the weights of a Swin that classifies ImageNet into the net's own.

    Args:
        path: safetensors or PyTorch file with timm's names, such as ``swin_tiny_patch4_window7_224``, or Microsoft's
            own, which timm before 0.9 had too; its classifier is ignored.

    Raises:
        InputError: if the net has no residual branch, or any weight of the Swin is missing, unexpected or misshapen.
    """
    if not isinstance(npnet, NPNet) or npnet.residual_branch is None:
        raise InputError(f"{path} came for a net without residual branch, which has no Swin: leave one of the two out.")
    swin = npnet.residual_branch.swin
    tensors, _ = read_tensors(path)
    tensors = swin_of_today({WRAPPERS.sub("", key): value.float() for key, value in tensors.items()})
    tensors = {key: value for key, value in tensors.items() if not key.startswith(CLASSIFIER)}
    patches = "patch_embed.proj.weight"  # a convolution there, a matrix here
    if patches in tensors:
        tensors[patches] = tensors[patches].flatten(1)
    check_tensors(path, tensors, {key: tuple(value.shape) for key, value in swin.state_dict().items()})
    swin.load_state_dict(tensors)


def common_resolution(sizes: Iterable[tuple[int, int]]) -> int:
    """R for noises of these sizes (H, W): the side of the most frequent size if it is square, else of a square of about
    the same area, a multiple of 8."""
    (height, width), _ = Counter(sizes).most_common(1)[0]
    return height if height == width else max(8, 8 * round(math.sqrt(height * width) / 8))
