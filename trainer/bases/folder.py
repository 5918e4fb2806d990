"""diffusers folders and hub ids: every part in the form that is there, and nothing of it left unread."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import safetensors
import torch
from torch import nn

from npnet_core.errors import InputError, reason
from npnet_core.tensorfile import INTEGERS
from trainer.bases.base import PARTS
from trainer.bases.load_errors import check_keys

# NAME[.VARIANT][-00001-of-00002].safetensors; until 2024 diffusers put the variant behind the shard
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(\.(?P<variant>\w+))?(-(?P<shard>\d+)-of-(?P<count>\d+))?"
    r"(\.(?P<old_variant>\w+))?\.safetensors"
)
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")  # all else that a pipeline reads: configs, vocabularies, …


def load_folder(
    cls: type,
    folder: Path,
    index: dict,
    dtype: torch.dtype,
    source: str,
    given: Mapping[str, nn.Module] = MappingProxyType({}),
    **options,
) -> Any:
    """A pipeline whose parts are read from safetensors.

    Args:
        cls: diffusers' pipeline class.
        folder: where :func:`find_folder` found it.
        index: what its ``model_index.json`` says.
        source: what the user named.
        given: parts that were read from elsewhere, by name.
        options: of the class's ``from_pretrained``.

    Raises:
        InputError: weights are missing, quantised or left over.
        OSError, ValueError, RuntimeError: what the loaders raise otherwise.
    """
    names = [name for name in weighted(index) if name not in given]
    parts = {name: load_part(class_of(index, name), folder, dtype, source, name) for name in names} | dict(given)
    return cls.from_pretrained(folder, local_files_only=True, **parts, **options)


def weighted(index: dict) -> list[str]:
    """The parts with weights that a ``model_index.json`` names."""
    names = (name for part in PARTS.values() for name in part)
    return [name for name in names if index.get(name, [None])[0] is not None]


def class_of(index: dict, name: str) -> type:
    """The class of a part."""
    import diffusers
    import transformers

    library, cls = index[name]
    return getattr({"diffusers": diffusers, "transformers": transformers}[library], cls)


def load_part(cls: type, folder: Path, dtype: torch.dtype, source: str, subfolder: str = "") -> nn.Module:
    """A network of diffusers or transformers from its folder.

    Raises:
        InputError: it is quantised, another class's, or its weights are missing or left over.
    """
    file = folder / subfolder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "of an unknown kind")
        raise _quantised(source, cls, method)
    if (name := config.get("_class_name", cls.__name__)) != cls.__name__:
        raise InputError(f"{source} holds a {name} where a {cls.__name__} is needed: choose a model of this kind.")
    variant = find_variant(folder / subfolder)
    if (integer := find_integer(folder / subfolder, variant or "")) is not None:
        raise _quantised(source, cls, integer)
    part, info = cls.from_pretrained(
        folder,
        **({"subfolder": subfolder} if subfolder else {}),
        variant=variant,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    check_keys(source, cls.__name__, info)
    return part


def _quantised(source: str, cls: type, how: str) -> InputError:
    return InputError(
        f"{source} holds a quantised {cls.__name__} ({how}), which predicts something else: name the model in fp16, "
        "bf16 or fp32."
    )


def find_integer(folder: Path, form: str) -> str | None:
    """The first weight of whole numbers in a part's files of this form, with its type; loaders would only cast it.

    Raises:
        InputError: a file is damaged.
    """
    for path in sorted(path for path in folder.glob("*.safetensors") if weight_form(path.name) == form):
        try:
            with safetensors.safe_open(path, "pt") as file:
                types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise InputError(
                f"{path} cannot be read ({reason(error)}): it is truncated or damaged, get the file again."
            ) from error
        for key, dtype in types.items():
            if not dtype.startswith(("F", "BF")) and not key.endswith(INTEGERS):
                return f"{key} is of type {dtype}"
    return None


def find_variant(folder: Path) -> str | None:
    """The variant that a part's folder holds its weights in (``fp16``); None if the plain form is there, or nothing."""
    return best_form(path.name for path in folder.glob("*.safetensors")) or None


def weight_form(name: str) -> str | None:
    """``""`` for a file of weights in the plain form, else its variant's name; None for another file."""
    match = WEIGHTS.fullmatch(name)
    return match and (match["variant"] or match["old_variant"] or "")


def best_form(names: Iterable[str]) -> str | None:
    """The form to read of one part's files: the plain one, else the first in the alphabet, None if none is there whole.

    A form is whole if it is one file or has all of its shards.
    """
    shards: dict[tuple[str, int], set[int]] = {}
    for match in filter(None, map(WEIGHTS.fullmatch, names)):
        key = weight_form(match[0]), int(match["count"] or 1)
        shards.setdefault(key, set()).add(int(match["shard"] or 1))
    return min((form for (form, count), found in shards.items() if len(found) == count), default=None)


def find_folder(source: str | Path, parts: Sequence[str], settings: Sequence[str] = ()) -> Path:
    """Where a folder or hub id lies on the disk. The hub's cache will do if it has every part in some form; otherwise
    what is missing is fetched, one form of each part.

    Args:
        parts: the subfolders with weights; ``""`` is the folder itself.
        settings: other subfolders that are needed.

    Raises:
        OSError: it is not to be had.
    """
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(source).is_dir():
        return Path(source)
    try:
        cached = Path(snapshot_download(str(source), local_files_only=True))
    except LocalEntryNotFoundError:
        cached = None
    if cached is not None and _complete(cached, parts, settings):
        return cached
    wanted = list(SETTINGS)
    files = [PurePosixPath(name) for name in list_repo_files(str(source))]
    for part in parts:
        of_part = [file for file in files if file.parent == PurePosixPath(part)]
        form = best_form(file.name for file in of_part)
        wanted += [str(file) for file in of_part if form is not None and weight_form(file.name) == form]
    return Path(snapshot_download(str(source), allow_patterns=wanted))


def _complete(folder: Path, parts: Iterable[str], settings: Iterable[str]) -> bool:
    whole = all(best_form(path.name for path in (folder / part).glob("*")) is not None for part in parts)
    return whole and all((folder / name).is_dir() for name in settings)
