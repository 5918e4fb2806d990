"""Files of preference models: found, recognised, read whole or refused, converted, described. Nothing is downloaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import InputError
from ..tensorfile import HASH, check_tensors, file_hash, read_tensors, write_tensors
from .architecture import Architecture, Text, Vision
from .kinds import CLIP_L, KINDS, Vocabulary
from .layouts import AESTHETIC, LAYOUTS, TRANSFORMERS, Layout

KIND = "npnet.scorer"
CONFIG = "npnet.scorer_config"
IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # weights in a transformers folder, the better first


@dataclass(frozen=True)
class ScorerFile:
    """A preference model as it was read: complete, under the file's own keys, in the file's own precision."""

    path: Path  # of the weights
    kind: str
    architecture: Architecture | None  # None for a network of one size
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_scorer(path: str | Path, kind: str | None = None, config: dict | None = None) -> ScorerFile:
    """Read and check a preference model without building it.

    HPSv2 and v2.1 have the same keys and shapes, and so do PickScore and any CLIP of its size: what they are is in the
    metadata of a file that ``npnet convert`` wrote, else in the name, else it has to be chosen.

    Args:
        path: a published file (PyTorch's or safetensors) or a transformers folder.
        kind: what it is; None to find out.
        config: an open_clip-style config, if the sizes are neither the published ones nor said in the file or folder.

    Raises:
        InputError: if it is missing, damaged, not of that kind or of none that can be told, or any key is missing,
            unexpected or misshapen.
    """
    path = Path(path)
    if kind is not None and kind not in list(KINDS):  # a graph may name anything, also what has no hash
        raise InputError(f"There is no preference model {kind}: choose one of {', '.join(KINDS)}.")
    weights, folder = _weights(path)
    tensors, metadata = read_tensors(weights)
    kind = _kind(path, layout_of(path, tensors), metadata, kind)
    layout = KINDS[kind].layout
    if layout is AESTHETIC and not any(key.startswith(TRANSFORMERS.mark) for key in tensors):
        tensors |= read_tensors(_image_tower(weights))[0]
    tensors = {key: value for key, value in tensors.items() if layout.reads(key)}
    if config is not None:
        architecture = Architecture.from_dict(config)
    elif CONFIG in metadata:
        architecture = Architecture.from_dict(_json(weights, metadata[CONFIG]))
    elif folder is not None:
        architecture = _architecture(folder)
    else:
        architecture = KINDS[kind].architecture
    check_tensors(weights, tensors, layout.shapes(architecture))
    return ScorerFile(weights, kind, architecture, tensors, metadata)


def layout_of(path: str | Path, tensors: dict[str, Tensor]) -> Layout:
    """How a file is written.

    Raises:
        InputError: if its keys are those of no preference model.
    """
    for layout in LAYOUTS:
        if any(key.startswith(layout.mark) for key in tensors):
            return layout
    raise InputError(
        f"{path} is no preference model that we know (it has keys such as "
        f"{', '.join(sorted(tensors)[:3]) or 'none'}): choose a file of {', '.join(KINDS)}."
    )


def find_weights(kind: str) -> Path:
    """Where the hub's cache or the authors' package has the weights of a kind already.

    Raises:
        InputError: if nowhere; it names the file and where it belongs.
    """
    facts = KINDS[kind]
    if facts.downloads is not None and (path := facts.downloads() / facts.file).is_file():
        return path
    if facts.repository is not None and (path := _cached(facts.repository, facts.file or "config.json")) is not None:
        return path if facts.file else path.parent
    what = facts.file or f"the folder {facts.repository.rpartition('/')[-1]}"
    source = f" (from {facts.repository} on the hub)" if facts.repository else ""
    raise InputError(f"No weights of {facts.title} are on this machine: get {what}{source} and name it, {kind}=FILE.")


def find_vocabulary(vocabulary: Vocabulary, weights: Path) -> Path:
    """The folder with a vocabulary: that of the weights, or one in the hub's cache.

    Raises:
        InputError: if there is none; it says what is missing and where it belongs.
    """
    if _has_words(weights.parent, vocabulary):
        return weights.parent
    for repository in vocabulary.repositories:
        for names in vocabulary.files:
            path = _cached(repository, names[0])
            if path is not None and _has_words(path.parent, vocabulary):
                return path.parent
    raise InputError(
        f"{vocabulary.title} is not beside {weights}: put it there (from {vocabulary.repositories[0]} on the hub)."
    )


def convert_scorer(source: str | Path, target: str | Path, kind: str | None = None, config: dict | None = None) -> None:
    """Write a preference model as one safetensors file: same keys, same precision; kind and sizes in its metadata.

    The aesthetic predictor's image tower is written with its head.

    Raises:
        InputError: as :func:`read_scorer`.
    """
    file = read_scorer(source, kind, config)
    entries = {
        KIND: file.kind,
        **({} if file.architecture is None else {CONFIG: json.dumps(file.architecture.to_dict())}),
        "npnet.provenance": f"converted from {file.path.name}, sha256 {file_hash(file.path)}",
    }
    kept = {key: value for key, value in file.metadata.items() if key != HASH}  # not all tensors need be the same
    write_tensors(target, file.tensors, {**kept, **entries})


def describe_scorer(path: str | Path, kind: str | None = None) -> dict[str, str]:
    """Name → text of what a file holds, in the order in which a person wants to read it; raises as read_scorer does."""
    file = read_scorer(path, kind)
    a = file.architecture
    types = sorted({str(value.dtype).removeprefix("torch.") for value in file.tensors.values()})
    rows = {
        "file": str(file.path),
        "sha256": file_hash(file.path),
        "preference model": f"{KINDS[file.kind].title} ({file.kind})",
        "layout": KINDS[file.kind].layout.title,
        "parameters": f"{sum(value.numel() for value in file.tensors.values()):,} in {', '.join(types)}",
    }
    if a is not None:
        rows["image tower"] = (
            f"{a.vision_cfg.layers} layers, {a.vision_cfg.width} wide, {a.vision_cfg.image_size} pixels"
        )
    if KINDS[file.kind].vocabulary is not None:
        rows["text tower"] = (
            f"{a.text_cfg.layers} layers, {a.text_cfg.width} wide, {a.text_cfg.context_length} tokens of "
            f"{a.text_cfg.vocab_size}"
        )
    return rows | dict(sorted(file.metadata.items()))


def _weights(path: Path) -> tuple[Path, Path | None]:
    """(file of the weights, transformers folder or None); a folder's weights stand for the folder."""
    if path.is_dir():
        for name in IN_FOLDER:
            if (path / name).is_file() and (path / "config.json").is_file():
                return path / name, path
        raise InputError(
            f"{path} is no transformers folder: it needs config.json and one of {' and '.join(IN_FOLDER)}."
        )
    in_folder = path.name in IN_FOLDER and (path.parent / "config.json").is_file()
    return path, path.parent if in_folder else None


def _kind(path: Path, layout: Layout, metadata: dict[str, str], chosen: str | None) -> str:
    """The kind of a file, from its layout, metadata and name, or the chosen one if nothing speaks against it."""
    possible = [kind for kind, facts in KINDS.items() if facts.layout is layout]
    if chosen is not None and chosen not in possible:
        raise InputError(
            f"{path} is not {KINDS[chosen].title} but {' or '.join(KINDS[kind].title for kind in possible)} by its "
            f"keys: choose {' or '.join(possible)}, or another file."
        )
    if metadata.get(KIND) in possible:
        found = [metadata[KIND]]
    elif len(possible) == 1:
        found = possible
    else:
        found = [kind for kind in possible if re.search(KINDS[kind].name, _name(path), re.IGNORECASE)]
    if chosen is not None and len(found) == 1 and found != [chosen]:
        raise InputError(
            f"{path} says by its metadata or name that it is {KINDS[found[0]].title}, not {KINDS[chosen].title}: "
            f"choose {found[0]}, or rename it if its name is wrong."
        )
    if chosen is None and len(found) != 1:
        raise InputError(
            f"{path} may be {' or '.join(KINDS[kind].title for kind in possible)}, which neither keys nor shapes tell: "
            f"choose its kind, {' or '.join(possible)}."
        )
    return chosen or found[0]


def _name(path: Path) -> str:
    """The name that people gave: of a file, of a folder, or of a repository in the hub's cache."""
    if path.name in IN_FOLDER:
        path = path.parent
    repositories = [part for part in path.absolute().parts if part.startswith("models--")]
    return repositories[-1] if repositories and path.is_dir() else path.name


def _architecture(folder: Path) -> Architecture:
    """The sizes in the config.json of a transformers folder."""
    from transformers import CLIPConfig

    path = folder / "config.json"
    values = _json(path, path.read_bytes())
    if values.get("model_type") != "clip":
        raise InputError(f"{folder} holds a {values.get('model_type')}, not a CLIP: choose a folder of a CLIP.")
    try:
        return _sizes(CLIPConfig.from_dict(values))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # what transformers makes of a damaged config depends on its version
        raise InputError(
            f"{path} is no config of a CLIP ({type(error).__name__}): it is damaged, get the folder again."
        ) from error


def _sizes(config) -> Architecture:
    """The architecture in a ``transformers.CLIPConfig``."""
    vision, text = config.vision_config, config.text_config
    return Architecture(
        config.projection_dim,
        Vision(
            vision.image_size,
            vision.patch_size,
            vision.hidden_size,
            vision.num_hidden_layers,
            head_width=vision.hidden_size // vision.num_attention_heads,
        ),
        Text(
            text.max_position_embeddings,
            text.vocab_size,
            text.hidden_size,
            text.num_hidden_layers,
            heads=text.num_attention_heads,
        ),
        quick_gelu=vision.hidden_act == "quick_gelu",
    )


def _json(path: Path, text: str | bytes) -> dict:
    """The object that a config is."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} has a config that cannot be read ({error}): it is damaged, get it again.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} has a config that is no object: it is damaged, get it again.")
    return values


def _image_tower(head: Path) -> Path:
    """The weights of CLIP-L for an aesthetic head: beside it, or in the hub's cache."""
    name = CLIP_L.rpartition("/")[-1]
    beside = [head.parent / name / weights for weights in IN_FOLDER] + [head.parent / f"{name}.safetensors"]
    cached = [_cached(CLIP_L, weights) for weights in IN_FOLDER]
    for path in [*beside, *cached]:
        if path is not None and path.is_file():
            return path
    raise InputError(
        f"{head} is a head without its image tower: put the folder {name} (from {CLIP_L} on the hub) beside it."
    )


def _cached(repository: str, file: str) -> Path | None:
    """A file in the hub's cache, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, file)
    return Path(path) if isinstance(path, str) else None


def _has_words(folder: Path, vocabulary: Vocabulary) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in vocabulary.files)
