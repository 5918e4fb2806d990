"""NPNet files: the three published layouts and our own safetensors. The only file that knows old key names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from .architectures import ARCHITECTURES, GoldenNet, new_net
from .config import PUBLISHED, Config, NPNetConfig
from .errors import InputError
from .tensorfile import HASH, check_tensors, data_hash, is_safetensors, read_tensors, write_tensors

# Published prefix → ours.
RENAMED = {
    "unet_svd.mlp1.": "svd_branch.u_mlp.",
    "unet_svd.mlp2.": "svd_branch.v_mlp.",
    "unet_svd.mlp3.0.": "svd_branch.s_linear.",
    "unet_svd.attention.": "svd_branch.attention.",
    "unet_svd.mlp4.": "svd_branch.head.",
    "unet_embedding.downconv.": "residual_branch.down.",
    "unet_embedding.swin.": "residual_branch.swin.",
    "unet_embedding.upconv.": "residual_branch.up.",
    "text_embedding.": "text_term.",
}

# The authors' own files spell the text term's prefix this way; so does one of the two safetensors conversions.
MISSPELT = "embeeding."

# In every published file and used by none of its computations: a batch norm and ImageNet's classifier. Who saves a net
# anew may leave them out.
UNUSED = {
    "unet_svd.bn.weight": (256,),
    "unet_svd.bn.bias": (256,),
    "unet_svd.bn.running_mean": (256,),
    "unet_svd.bn.running_var": (256,),
    "unet_svd.bn.num_batches_tracked": (),
    "unet_embedding.swin.head.fc.weight": (1000, 768),
    "unet_embedding.swin.head.fc.bias": (1000,),
}

# Swin's buffers, which timm before 0.9.6 saves too: they follow from its sizes.
COMPUTED = ("relative_position_index", "attn_mask")
# Microsoft's Swin and timm before 0.9 end a stage with it, later ones begin one.
DOWNSAMPLE = re.compile(r"(?<![^.])layers\.(\d+)\.downsample\.")

# What DistributedDataParallel, torch.compile and a checkpoint's own dictionary put in front of a module's keys.
WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model|net|npnet)\.)+|(?<=\.)(?:(?:module|_orig_mod)\.)+")

# Kernel side of the published convolutions that are matrices here.
CONVOLUTIONS = {
    "unet_embedding.downconv.weight": 1,
    "unet_embedding.upconv.weight": 1,
    "unet_embedding.swin.patch_embed.proj.weight": 4,
}

ARCHITECTURE = "npnet.architecture"
CONFIG = "npnet.config"


@dataclass(frozen=True)
class NPNetFile:
    """What a file holds: its layout, its tensors under our names, the net's config, the metadata, unused numbers."""

    layout: str
    tensors: dict[str, Tensor]
    config: Config
    metadata: dict[str, str]
    unused: int


def load_npnet(path: str | Path, device: str | torch.device = "cpu", operations=nn) -> GoldenNet:
    """Load an NPNet from one of the three published layouts or from our own safetensors, in eval mode, fp32.

    Our own files say which architecture the net has; the published ones have the published one.

    The kind of file is read from its content, not from its name; nothing is unpickled but tensors.

    Args:
        path: the file.
        device: where the weights go.
        operations: the namespace of the net's layers, see :mod:`npnet_core.layers`.

    Raises:
        InputError: the file is missing, damaged, no NPNet, or any key is missing, unexpected or misshapen.
    """
    file = read_npnet(path)
    with torch.device("meta"):
        npnet = new_net(file.config, operations)
    npnet.load_state_dict(file.tensors, assign=True)
    npnet.requires_grad_(False)
    npnet.metadata = file.metadata
    return npnet.to(device).eval()


def save_npnet(npnet: GoldenNet, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that :func:`load_npnet` reads, whole or not at all.

    The metadata holds the config, a checksum of the weights, and ``modelspec.*`` as model managers show it.

    Args:
        npnet: the net; its weights are stored in fp32.
        path: where to; an existing file is replaced.
        metadata: further entries, such as ``npnet.base_model`` and ``npnet.provenance``; without it those that the net
            was loaded with.
    """
    path = Path(path)
    tensors = {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in npnet.state_dict().items()}
    size = npnet.config.resolution * 8
    entries = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": npnet.config.architecture,
        "modelspec.implementation": "npnet-golden-noise",
        "modelspec.title": path.stem,
        "modelspec.resolution": f"{size}x{size}",
        **(npnet.metadata if metadata is None else metadata),
        ARCHITECTURE: npnet.config.architecture,
        CONFIG: json.dumps(npnet.config.to_dict()),
    }
    entries[HASH] = data_hash(safetensors.torch.save(tensors))
    write_tensors(path, tensors, entries)


def read_npnet(path: str | Path) -> NPNetFile:
    """Read and check a file without building the net; raises as :func:`load_npnet` does."""
    path = Path(path)
    tensors, metadata = read_tensors(path)
    if CONFIG not in metadata:
        unwrapped = {WRAPPERS.sub("", key): value for key, value in tensors.items()}
        if len(unwrapped) < len(tensors):
            twice = (key for key in tensors if unwrapped[WRAPPERS.sub("", key)] is not tensors[key])
            raise InputError(f"{path} holds more than one net ({next(twice)} is there twice): choose a file of one.")
        tensors = swin_of_today(unwrapped)
    layout = _layout(path, tensors, metadata)
    if CONFIG in metadata:
        config = _config(path, metadata)
        check_tensors(path, tensors, _shapes(config))
        unused = 0
    else:
        if not any(key.startswith("text_embedding.") for key in tensors):
            tensors = {key.replace(MISSPELT, "text_embedding."): value for key, value in tensors.items()}
        if not any(key.startswith(tuple(RENAMED)) for key in tensors):
            raise InputError(
                f"{path} is not an NPNet (it has keys such as {', '.join(sorted(tensors)[:3]) or 'none'}): choose one "
                "of the published NPNet files or one that `npnet fit` or `npnet convert` wrote."
            )
        config = _published_config(tensors)
        surplus = {key: shape for key, shape in UNUSED.items() if key in tensors}
        check_tensors(path, tensors, _published_shapes(config) | surplus)
        unused = sum(tensors[key].numel() for key in surplus)
        tensors = {
            _renamed(key, RENAMED): value.flatten(1) if key in CONVOLUTIONS else value
            for key, value in tensors.items()
            if key not in UNUSED
        }
    # copied: the user may replace the file while the net lives
    tensors = {key: value.to(torch.float32, copy=True) for key, value in tensors.items()}
    return NPNetFile(layout, tensors, config, metadata, unused)


def swin_of_today(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the keys that timm writes today, where a Swin among them was written by an earlier version, or
    by Microsoft."""
    shift = any(key.endswith("layers.0.downsample.reduction.weight") for key in tensors)
    named = {}
    for key, value in tensors.items():
        if key.endswith(COMPUTED):
            continue
        if shift:
            key = DOWNSAMPLE.sub(lambda stage: f"layers.{int(stage[1]) + 1}.downsample.", key)
            key = re.sub(r"(?<![^.])head\.(weight|bias)$", r"head.fc.\1", key)
        named[key] = value
    return named


def _layout(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The layout's name, as ``npnet inspect`` shows it."""
    if CONFIG in metadata:
        return "npnet safetensors"
    if not is_safetensors(path):
        return "released .pth"
    return "safetensors, " + (MISSPELT if any(key.startswith(MISSPELT) for key in tensors) else "text_embedding.") + "*"


def _config(path: Path, metadata: dict[str, str]) -> Config:
    name = metadata.get(ARCHITECTURE, NPNetConfig.architecture)
    if name not in ARCHITECTURES:
        raise InputError(
            f"{path} is a net of the architecture {name!r} and this version knows {', '.join(ARCHITECTURES)}: the file "
            "was made by a newer version, so update this package."
        )
    try:
        return ARCHITECTURES[name][0].from_dict(json.loads(metadata[CONFIG]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{path} has a config that cannot be read ({error}): it is damaged, get it again.") from error


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in new_net(config).state_dict().items()}


def _published_config(tensors: dict[str, Tensor]) -> NPNetConfig:
    """The published net whose text term is as wide as this one's; SDXL's where none is, so that the check names it."""
    weight = tensors.get("text_embedding.linear.weight")
    for config in PUBLISHED.values():
        if weight is not None and weight.shape[-1:] == (config.prompt_tokens * config.prompt_dim,):
            return config
    return PUBLISHED["sdxl"]


def _published_shapes(config: NPNetConfig) -> dict[str, tuple[int, ...]]:
    shapes = {
        _renamed(key, {new: old for old, new in RENAMED.items()}): shape for key, shape in _shapes(config).items()
    }
    for key, side in CONVOLUTIONS.items():
        features_out, features_in = shapes[key]
        shapes[key] = (features_out, features_in // side**2, side, side)
    return shapes


def _renamed(key: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key  # alpha, beta
