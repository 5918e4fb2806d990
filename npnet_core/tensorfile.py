"""Files of tensors: safetensors and PyTorch's own, read without running code, written whole or not at all."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .atomic_write import atomic_write
from .errors import InputError, reason

HASH = "modelspec.hash_sha256"  # of all tensors, where a safetensors file says it
# what training loops keep beside the weights
TRAINING = {"optimizer", "optim", "optimizer_state_dict", "scheduler", "lr_scheduler", "scheduler_state_dict", "scaler"}
TRAINING |= {"lr_scheduler_state_dict", "epoch", "step", "global_step", "iteration", "loss", "config", "args"}
INTEGERS = ("num_batches_tracked", "position_ids")  # all other weights are floating point


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors by key, metadata) of a file; what kind of file it is, its first bytes say.

    A PyTorch file may hold its tensors under ``"state_dict"`` or ``"model_state_dict"``, or in dictionaries within each
    other, whose names are then joined by dots, without what :data:`TRAINING` names; it has no metadata. The tensors are
    mapped from the file where that is possible: copy what has to outlive it.

    Raises:
        InputError: the file is missing, of another kind, damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}: check its name.")
    with path.open("rb") as file:
        start = file.read(2)
    if is_safetensors(path):
        read = _read_safetensors
    elif start[:2] == b"PK" or start[:1] == b"\x80":
        read = _read_pickle
    else:
        what = "neither a safetensors nor a PyTorch file" if start else "empty"
        raise InputError(f"{path} is {what}: get the file again.")
    try:
        return read(path)
    except (InputError, MemoryError):
        raise
    # A damaged file can break a parser anywhere; whatever it was, it is reported as that.
    except Exception as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {reason(error)}): it is truncated or damaged, get the "
            "file again."
        ) from error


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the header's length in eight bytes, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        # of others' files nobody knows in which order they were hashed
        ours = any(key.startswith("npnet.") for key in metadata)
        if ours and HASH in metadata and metadata[HASH] != data_hash(path.read_bytes()):
            raise InputError(f"{path} is damaged: its weights do not match their checksum, get the file again.")
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118


def zip_damage(path: Path) -> str | None:
    """What is wrong with a PyTorch file that is a zip archive, of which torch itself takes no notice; None if nothing.

    Raises:
        zipfile.BadZipFile: if it is none.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch stores as it is; what is compressed may be of any size
        if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
            return f"{packed[0]} is compressed"
        # an entry marked as a folder is not read, and its tensor holds whatever was in memory
        if folders := [entry.filename for entry in entries if entry.external_attr & 0x10]:
            return f"{folders[0]} is marked as a folder"
        # torch does not compare the checksums that it writes
        return None if (damaged := archive.testzip()) is None else f"checksum of {damaged} differs"


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if (zipped := zipfile.is_zipfile(path)) and (damage := zip_damage(path)) is not None:
        raise InputError(f"{path} is damaged ({damage}): get the file again.")
    try:
        if path.suffix == ".safetensors":  # torch goes by the name, where it is given one
            with path.open("rb") as file:
                content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise InputError(
                f"{path} is damaged or holds more than tensors, which could run code when unpickled: use the published "
                "file or a safetensors file."
            ) from error
        raise
    if isinstance(content, dict):
        content = content.get("state_dict", content.get("model_state_dict", content))
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a model's weights: choose another file.")
    tensors = _flat({name: value for name, value in content.items() if name not in TRAINING})
    if wrong := sorted(key for key, value in tensors.items() if not _plain(value)):
        raise InputError(f"{path} has no tensor under {', '.join(wrong[:5])}: choose a file of a model's weights.")
    return tensors, {}


def _flat(content: dict) -> dict[str, object]:
    """The entries of dictionaries within each other, by their names joined by dots."""
    flat = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in _flat(value).items()}
        else:
            flat[str(name)] = value
    return flat


def _plain(value: object) -> bool:
    """Whether it is a tensor with one number for every entry: not sparse, quantized, nested or without data."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not (value.is_quantized or value.is_meta)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; an existing one is replaced when the new one is complete.

    Raises:
        OSError: if it cannot be written; nothing half-written stays.
    """
    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    with atomic_write(Path(path)) as partial:
        try:
            safetensors.torch.save_file(contiguous, partial, metadata)
        except safetensors.SafetensorError as error:  # what the system said, in other words
            raise OSError(f"{path} cannot be written: {error}") from error


def file_hash(path: str | Path) -> str:
    """SHA-256 of a whole file, as model pages show it."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def data_hash(content: bytes) -> str:
    """SHA-256 of everything behind the header of a safetensors file, written as modelspec wants it."""
    header = int.from_bytes(content[:8], "little")
    return "0x" + hashlib.sha256(memoryview(content)[8 + header :]).hexdigest()


def check_tensors(path: str | Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise one InputError that names every key that is missing, unexpected or misshapen, has whole numbers, NaN or
    infinity."""
    complaints = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "misshapen": [
            f"{key} {list(tensors[key].shape)} instead of {list(shape)}"
            for key, shape in sorted(expected.items())
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
        "not floating point": sorted(
            key
            for key in expected.keys() & tensors.keys()
            if not tensors[key].is_floating_point() and not key.endswith(INTEGERS)
        ),
    }
    found = [f"{len(keys)} {kind} ({', '.join(keys)})" for kind, keys in complaints.items() if keys]
    if found:
        raise InputError(
            f"{path} does not have the keys of its kind: {'; '.join(found)}; get the file again or choose another."
        )
    if broken := sorted(key for key, value in tensors.items() if not _finite(value)):
        raise InputError(f"{path} has NaN or infinite weights in {', '.join(broken)}: it is damaged, get it again.")


def _finite(value: Tensor) -> bool:
    value = value.float() if value.itemsize == 1 else value  # fp8 has no extremes of its own
    return bool(torch.stack(value.aminmax()).isfinite().all())
