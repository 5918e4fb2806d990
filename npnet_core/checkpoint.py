"""NPNet files: the three published layouts and our own safetensors. The only file that knows old key names."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from .config import PUBLISHED, NPNetConfig
from .errors import InputError
from .model import NPNet

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

# In every published file and used by none of its computations: a batch norm and ImageNet's classifier.
UNUSED = {
    "unet_svd.bn.weight": (256,),
    "unet_svd.bn.bias": (256,),
    "unet_svd.bn.running_mean": (256,),
    "unet_svd.bn.running_var": (256,),
    "unet_svd.bn.num_batches_tracked": (),
    "unet_embedding.swin.head.fc.weight": (1000, 768),
    "unet_embedding.swin.head.fc.bias": (1000,),
}

# Kernel side of the published convolutions that are matrices here.
CONVOLUTIONS = {
    "unet_embedding.downconv.weight": 1,
    "unet_embedding.upconv.weight": 1,
    "unet_embedding.swin.patch_embed.proj.weight": 4,
}

ARCHITECTURE = "npnet.architecture"
CONFIG = "npnet.config"
HASH = "modelspec.hash_sha256"


@dataclass(frozen=True)
class NPNetFile:
    """What a file holds: its layout, its tensors under our names, the net's config, the metadata, unused numbers."""

    layout: str
    tensors: dict[str, Tensor]
    config: NPNetConfig
    metadata: dict[str, str]
    unused: int


def load_npnet(path: str | Path, device: str | torch.device = "cpu", operations=nn) -> NPNet:
    """Load an NPNet from one of the three published layouts or from our own safetensors, in eval mode, fp32.

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
        npnet = NPNet(file.config, operations)
    npnet.load_state_dict(file.tensors, assign=True)
    npnet.requires_grad_(False)
    npnet.metadata = file.metadata
    return npnet.to(device).eval()


def save_npnet(npnet: NPNet, path: str | Path, metadata: dict[str, str] | None = None) -> None:
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
        "modelspec.architecture": "npnet",
        "modelspec.implementation": "npnet-golden-noise",
        "modelspec.title": path.stem,
        "modelspec.resolution": f"{size}x{size}",
        **(npnet.metadata if metadata is None else metadata),
        ARCHITECTURE: "npnet",
        CONFIG: json.dumps(npnet.config.to_dict()),
    }
    entries[HASH] = _data_hash(safetensors.torch.save(tensors))
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(safetensors.torch.save(tensors, entries))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_npnet(path: str | Path) -> NPNetFile:
    """Read and check a file without building the net; raises as :func:`load_npnet` does."""
    path = Path(path)
    tensors, metadata, layout = _read(path)
    if CONFIG in metadata:
        config = _config(path, metadata[CONFIG])
        _check(path, tensors, _shapes(config), "unpack it again or convert it anew from its source")
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
        _check(path, tensors, _published_shapes(config) | UNUSED, "download the file again")
        unused = sum(tensors[key].numel() for key in UNUSED)
        tensors = {
            _renamed(key, RENAMED): value.flatten(1) if key in CONVOLUTIONS else value
            for key, value in tensors.items()
            if key not in UNUSED
        }
    tensors = {key: value.float() for key, value in tensors.items()}
    if broken := sorted(key for key, value in tensors.items() if not value.sum().isfinite()):
        raise InputError(
            f"{path} has NaN or infinite weights in {', '.join(broken)}: the file is damaged, get it again."
        )
    return NPNetFile(layout, tensors, config, metadata, unused)


def _config(path: Path, text: str) -> NPNetConfig:
    try:
        return NPNetConfig.from_dict(json.loads(text))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{path} has a config that cannot be read ({error}): it is damaged, get it again.") from error


def _shapes(config: NPNetConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in NPNet(config).state_dict().items()}


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


def _check(path: Path, tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], remedy: str) -> None:
    """Raise one error that names every key that is missing, unexpected or misshapen."""
    complaints = {
        "missing": sorted(set(expected) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(expected)),
        "misshapen": [
            f"{key} {list(tensors[key].shape)} instead of {list(shape)}"
            for key, shape in sorted(expected.items())
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
        "not floating point": sorted(
            key
            for key in set(tensors) & set(expected)
            if not tensors[key].is_floating_point() and not key.endswith("num_batches_tracked")
        ),
    }
    found = [f"{len(keys)} {kind} ({', '.join(keys)})" for kind, keys in complaints.items() if keys]
    if found:
        raise InputError(f"{path} is no complete NPNet: its keys are {'; '.join(found)}; {remedy}.")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Tensors by key, metadata, and the name of the layout. What kind of file it is, its first bytes say."""
    if not path.is_file():
        raise InputError(f"There is no file {path}: check the name, NPNet files belong into models/npnet.")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        tensors, metadata = _parse(path, _read_safetensors)
        if CONFIG in metadata:
            return tensors, metadata, "npnet safetensors"
        return (
            tensors,
            metadata,
            "safetensors, " + ("embeeding.*" if _misspelt(tensors) else "text_embedding.*"),
        )
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _parse(path, _read_pickle), {}, "released .pth"
    raise InputError(
        f"{path} is {'empty' if not start else 'neither a safetensors nor a PyTorch file'}: download the NPNet again."
    )


def _misspelt(tensors: dict[str, Tensor]) -> bool:
    return any(key.startswith(MISSPELT) for key in tensors)


def _parse(path: Path, read: Callable):
    try:
        return read(path)
    except InputError:
        raise
    # A damaged file can break a parser anywhere; whatever it was, it is reported as that.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {reason}): it is truncated or damaged, get the file again."
        ) from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    content = path.read_bytes()  # not mapped: the user may replace the file while the net lives
    if HASH in metadata and metadata[HASH] != _data_hash(content):
        raise InputError(f"{path} is damaged: its weights do not match their checksum, get the file again.")
    return safetensors.torch.load(content), metadata


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The released layout: ``{"unet_svd": {…}, "unet_embedding": {…}, "embeeding": {…}, "alpha": …, "beta": …}``."""
    if zipfile.is_zipfile(path):  # torch does not compare the checksums that it writes
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise InputError(f"{path} is damaged (checksum of {damaged} differs): download the file again.")
            # an entry marked as a folder is not read, and its tensor holds whatever was in memory
            if folders := [entry.filename for entry in archive.infolist() if entry.external_attr & 0x10]:
                raise InputError(f"{path} is damaged ({folders[0]} is marked as a folder): download the file again.")
    try:
        with path.open("rb") as file:  # given a path, torch goes by the name
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise InputError(
                f"{path} is damaged or holds more than tensors, which could run code when unpickled: use the published "
                "file or a safetensors file."
            ) from error
        raise
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not the weights of an NPNet: choose another file.")
    flat = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": tensor for key, tensor in value.items()}
        else:
            flat[str(name)] = value
    if wrong := sorted(str(key) for key, value in flat.items() if not isinstance(value, Tensor)):
        raise InputError(f"{path} is not an NPNet (no tensor under {', '.join(wrong[:5])}): choose another file.")
    return flat


def _data_hash(content: bytes) -> str:
    """SHA-256 of everything behind the header of a safetensors file, written as modelspec wants it."""
    header = int.from_bytes(content[:8], "little")
    return "0x" + hashlib.sha256(memoryview(content)[8 + header :]).hexdigest()
