"""The net that a fit starts from: new, an earlier one, or new with ImageNet's weights in its Swin."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from npnet_core.architectures import ARCHITECTURES, GoldenNet, new_net
from npnet_core.checkpoint import WRAPPERS, load_npnet, swin_of_today
from npnet_core.config import MENDED, Config, NPNetConfig, UNetConfig, narrow_prompt
from npnet_core.errors import InputError
from npnet_core.model import NPNet
from npnet_core.tensorfile import check_tensors, read_tensors
from trainer.fitting.settings import NetSettings

log = logging.getLogger(__name__)

CLASSIFIER = "head."  # the prefix in an ImageNet file of what the net does not use


class NetInputs(NamedTuple):
    """What a net is given, as the data decides; the names are those of a net's config."""

    family: str
    channels: int
    resolution: int
    prompt_tokens: int
    prompt_dim: int


def starting_net(settings: NetSettings, inputs: NetInputs, seed: int) -> GoldenNet:
    """New, its weights drawn from ``seed``, or from ``settings.init``."""
    given = inputs._asdict()
    if settings.drop_path is not None:
        given["drop_path"] = settings.drop_path
    if settings.init is not None:
        del given["resolution"]  # the file's own
        return fine_tuned(settings.init, given, seed)
    if settings.architecture == NPNetConfig.architecture:
        given |= {
            "svd_branch": "svd" not in settings.without,
            "text_term": "text" not in settings.without,
            "residual_branch": "residual" not in settings.without,
            **({} if settings.published_quirks else MENDED),
        }
    if settings.architecture == UNetConfig.architecture:
        given["prompt_width"] = narrow_prompt(inputs.prompt_dim)
    npnet = new_npnet(ARCHITECTURES[settings.architecture][0](**given | settings.shape), seed)
    if settings.swin_weights is not None:
        load_imagenet_swin(npnet, settings.swin_weights)
    return npnet


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
            the log says. Prompts of its own family it goes on reading as many tokens of as before: how long the longest
            of a dataset is says nothing of the next.

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
    if (earlier.config.family, earlier.config.prompt_dim) == (config["family"], config["prompt_dim"]):
        config = config | {"prompt_tokens": earlier.config.prompt_tokens}
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
