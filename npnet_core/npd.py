"""The noise prompt dataset on disk: append, resume, merge, read.

    NAME/manifest.json                        what all pairs have in common
    NAME/parts/<worker>-<number>.safetensors  tensors "0", "1", …: [2, C, H, W] fp16, source noise and target noise
    NAME/parts/<worker>-<number>.jsonl        the settings, then a line per pair, then a checksum

A part is there once its .jsonl is: both files are written under a temporary name, synced and renamed, the .jsonl last.
Nobody changes a part after that, so any number of writers on any number of machines need no lock, a kill loses no
more than the part being filled, and readers see whole parts only. Noise is stored with unit variance (x / √(1 + σ₀²)
where ComfyUI holds the latents of epsilon and v models), its size may differ from pair to pair, and rounding it to
fp16 adds 4e-8 of its variance.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import math
import operator
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from .atomic_write import atomic_write
from .errors import InputError
from .hidden import hidden

log = logging.getLogger(__name__)

VERSION = 2  # the newest that is read; what is written says the oldest that can read it (:attr:`Manifest.version`)
GUIDANCE = ("cfg", "embedding")
# What JSON of another form than ours leads to.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
STALE = 3600  # seconds after which an unfinished part belongs to a writer that no longer lives


# -- what is stored ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """The settings behind a dataset. All but ``recorded`` must be equal for all its pairs.

    Args:
        base_family: base model family, as in :class:`npnet_core.config.Config` (``sdxl``, ``hunyuan-dit``, …).
        sigmas: the noise levels of re-denoising, one more than it takes steps down (two in the paper), as ComfyUI
            counts sigma: √((1 - ᾱ) / ᾱ), or flow's 0..1. Compared to 1e-5 relative.
        cfg, inversion_cfg: guidance of the denoising and of the inversion step.
        inversion, rounds: as in :func:`npnet_core.redenoising.redenoise`.
        guidance: how ``cfg`` and ``inversion_cfg`` entered: ``cfg`` as classifier-free guidance, ``embedding`` as a
            number that the network is told.
        redenoised_with: what identifies the model that re-denoised, where it is another than the one that sampled (the
            undistilled sibling of a distilled one); None where it is the same.
        recorded: JSON values worth knowing later (base model, how images were sampled, scorers, versions); may
            differ from writer to writer, every pair keeps its writer's.
    """

    base_family: str
    sigmas: tuple[float, ...]
    cfg: float
    inversion_cfg: float
    inversion: str
    rounds: int
    recorded: dict = field(default_factory=dict)
    guidance: str = "cfg"
    redenoised_with: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(self.sigmas))  # JSON has lists only
        if len(self.sigmas) < 2:
            raise ValueError(f"{len(self.sigmas)} sigmas instead of two or more")
        numbers = (*self.sigmas, self.cfg, self.inversion_cfg, self.rounds)
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            raise ValueError(f"{numbers} are not all finite numbers")
        if not (isinstance(self.base_family, str) and isinstance(self.inversion, str)):
            raise ValueError(f"{self.base_family!r} or {self.inversion!r} is no name")
        if self.guidance not in GUIDANCE or not isinstance(self.redenoised_with, str | None):
            raise ValueError(f"{self.guidance!r} is no guidance, or {self.redenoised_with!r} no name")
        if not isinstance(self.recorded, dict):
            raise ValueError(f"{self.recorded!r} is not a record")

    @property
    def version(self) -> int:
        """Of the format: 1 unless an entry says something that version 0.1.0 would not compare."""
        return 1 if self.guidance == "cfg" and self.redenoised_with is None else 2

    def to_dict(self) -> dict:
        """As plain JSON types; what version 1 does not have is left out where it says nothing."""
        values = dataclasses.asdict(self)
        if self.version == 1:
            del values["guidance"], values["redenoised_with"]
        return values

    def differences(self, other: Manifest) -> list[str]:
        """``name ours and theirs`` of every compared setting that differs."""
        differing = []
        for name in (f.name for f in dataclasses.fields(self) if f.name != "recorded"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if name == "sigmas":
                same = len(ours) == len(theirs) and all(
                    math.isclose(a, b, rel_tol=1e-5) for a, b in zip(ours, theirs, strict=True)
                )
            else:
                same = ours == theirs
            if not same:
                differing.append(f"{name} {ours} and {theirs}")
        return differing


def _require_equal(ours: Manifest, theirs: Manifest, name: str, their_name: str) -> None:
    if differing := ours.differences(theirs):
        raise InputError(
            f"{name} was made with other settings than {their_name} ({'; '.join(differing)}): use equal settings or "
            "another dataset."
        )


class PairKey(NamedTuple):
    """What a pair was made for. With its source noise it makes a pair unique in a dataset: a noise is more than its
    seed where it was varied, made golden or injected."""

    prompt: str
    seed: int
    shape: tuple[int, int, int]  # C, H, W of one noise
    item: int = 0  # which noise of a batch that was drawn from one seed


@dataclass(frozen=True)
class PairRecord:
    """All that is known of one pair, without its noise."""

    key: PairKey
    scores: dict[str, tuple[float, float]]  # scorer → raw scores of the source's and of the target's image
    extra: dict  # JSON values that the writer added
    source_crc32: int  # of the source noise, as :func:`source_crc32` gives it
    crc32: int  # of source and target
    settings: Manifest  # of the writer that made it
    part: Path
    offset: int  # bytes into ``part``


def source_crc32(source: Tensor) -> int:
    """The checksum of a source noise [C, H, W] as it is stored, in fp16."""
    return zlib.crc32(source.to("cpu", torch.float16).contiguous().numpy())


def dataset_folder(root: str | Path, name: str) -> Path:
    """``root/name``, for a name that cannot lead anywhere else on any operating system.

    Raises:
        InputError: for a name that is empty, longer than 100 characters, reserved by Windows, begins or ends with a
            dot or space, or holds a separator or a character that some file system refuses.
    """
    reserved = ["CON", "PRN", "AUX", "NUL"] + [port + n for port in ("COM", "LPT") for n in "123456789¹²³"]
    if (
        not 0 < len(name) <= 100
        or not name.isprintable()
        or name != name.strip(" .")
        or set(name) & set('/\\:*?"<>|')
        or name.partition(".")[0].rstrip().upper() in reserved
    ):
        raise InputError(
            f"The dataset name {name!r} cannot be a folder's name: use up to 100 letters, digits, spaces, dots, - "
            "and _."
        )
    return Path(root) / name


# -- writing ----------------------------------------------------------------------------------------------------------


class NPDWriter:
    """Appends pairs to a dataset, making it if need be. Leaving the ``with`` block writes what is left.

    Two writers that race may both write a pair that neither found on opening; readers keep one of the two.

    Args:
        folder: the dataset; new, empty, or made with equal settings.
        manifest: the settings behind the pairs to come.
        worker: the first part of file names, letters, digits, - and _; writers may share it.
        pairs_per_part: pairs per file, and so the most that a kill can lose.

    Raises:
        InputError: if the folder holds something else, was made with other settings (named), holds damaged parts
            (named), or cannot be written.
    """

    def __init__(self, folder: str | Path, manifest: Manifest, *, worker: str, pairs_per_part: int = 64):
        if not worker.replace("-", "").replace("_", "").isalnum() or not worker.isascii():
            raise InputError(f"The worker name {worker!r} becomes part of file names: use letters, digits, - and _.")
        self.folder, self.manifest = Path(folder), manifest
        self._parts, self._worker, self._pairs_per_part = self.folder / "parts", worker, pairs_per_part
        with _disk_errors(self.folder):
            _make_or_join(self.folder, manifest)
            _discard_stale(self._parts)
        records = _scan(self.folder, manifest)
        self._sources: dict[PairKey, set[int]] = {}  # the checksums of what was stored or waits
        for record in records:
            self._sources.setdefault(record.key, set()).add(record.source_crc32)
        self._number = len({r.part for r in records if r.part.name.startswith(f"{worker}-")})
        self._waiting: list[tuple[Tensor, dict]] = []

    def __enter__(self) -> NPDWriter:
        return self

    def __exit__(self, *exc_info) -> None:
        self.flush()

    def __contains__(self, key: PairKey) -> bool:
        """Whether a pair of this key was in the dataset on opening, or came to this writer since."""
        return key in self._sources

    def add(
        self,
        source: Tensor,
        target: Tensor,
        *,
        prompt: str,
        seed: int,
        item: int = 0,
        scores: dict[str, tuple[float, float]] | None = None,
        extra: dict | None = None,
    ) -> bool:
        """Append one pair, kept or rejected alike: selection happens when a net is fitted.

        Args:
            source, target: [C, H, W] each, unit variance.
            prompt, seed, item: with the shape, the pair's :class:`PairKey`; pairs of one key differ in their source.
            scores: scorer → raw scores of the source's and the target's image.
            extra: JSON values to keep with the pair.

        Returns:
            False if a pair of this key and source is there already; then nothing changes, whatever its target.

        Raises:
            InputError: if shapes differ, a value is not finite, seed or item is no whole number, or the prompt cannot
                be kept as it is; if a part is due and cannot be written.
        """
        if source.shape != target.shape or source.ndim != 3:
            raise InputError(
                f"Source noise {list(source.shape)} and target noise {list(target.shape)} make no pair: "
                "give two of one shape [C, H, W]."
            )
        try:
            seed, item = int(operator.index(seed)), int(operator.index(item))  # NumPy's and tensors' too, but no float
        except TypeError as error:
            raise InputError(
                f"A pair of seed {seed!r} and item {item!r} came: both have to be whole numbers, so draw the noise "
                "with a node that has a seed, such as RandomNoise."
            ) from error
        if not isinstance(prompt, str):
            raise InputError(f"The prompt for seed {seed} is {prompt!r}: give a text.")
        if json.loads(json.dumps(prompt)) != prompt:  # which joins a character's halves (surrogates)
            raise InputError(f"The prompt for seed {seed} holds a character in two halves: write it as one.")
        pair = torch.stack([source, target]).to("cpu", torch.float16)
        if not pair.sum(dtype=torch.float32).isfinite():  # as good as asking every entry, and ten times faster in fp16
            raise InputError(
                f"The pair for seed {seed} holds NaN or infinite values: look for them in the model's output."
            )
        for scorer, values in (scores or {}).items():
            if len(values) != 2 or not all(map(math.isfinite, values)):
                raise InputError(
                    f"{scorer} scored the pair for seed {seed} {values}: give two finite numbers, source and target."
                )
        sources = self._sources.setdefault(PairKey(prompt, seed, tuple(source.shape), item), set())
        checksum = source_crc32(pair[0])
        if checksum in sources:
            return False
        sources.add(checksum)
        row = {"prompt": prompt, "seed": seed, "item": item, "scores": scores or {}, "extra": extra or {}}
        self._waiting.append((pair, row))
        if len(self._waiting) >= self._pairs_per_part:
            self.flush()
        return True

    def flush(self) -> None:
        """Write the pairs that wait as one part. They are on the disk, whole and synced, when this returns.

        Raises:
            InputError: if the disk is full or cannot be written; nothing half-written stays, and the pairs still wait.
        """
        if not self._waiting:
            return
        tensors = {str(i): pair for i, (pair, _) in enumerate(self._waiting)}
        data = safetensors.torch.save(tensors)
        sidecar = _sidecar(self.manifest, data, self._waiting)
        with _disk_errors(self.folder):
            self._number = 1 + _commit(self._parts, self._worker, self._number, data, sidecar)
        self._waiting.clear()


def _sidecar(manifest: Manifest, data: bytes, pairs: Iterable[tuple[Tensor, dict]]) -> bytes:
    """The .jsonl that goes with the .safetensors file ``data``."""
    start = 8 + int.from_bytes(data[:8], "little")  # of the tensors, after the header's length and the header
    tensors = json.loads(data[8:start])
    header = {"version": manifest.version, "bytes": len(data), "crc32": zlib.crc32(data)}
    lines = [header | {"settings": manifest.to_dict()}]
    for i, (pair, row) in enumerate(pairs):
        source, target = pair
        checksum = source_crc32(source)
        place = {
            "shape": tuple(source.shape),
            "offset": start + tensors[str(i)]["data_offsets"][0],
            "source_crc32": checksum,
            "crc32": zlib.crc32(target.numpy(), checksum),
        }
        lines.append(row | place)
    body = b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines)
    return body + json.dumps({"crc32": zlib.crc32(body)}).encode() + b"\n"


def _commit(parts: Path, worker: str, number: int, data: bytes, sidecar: bytes) -> int:
    """Write one part under the first free number from ``number`` on, which is returned."""
    while not _claim(parts, stem := f"{worker}-{number:06d}"):
        number += 1
    try:
        for suffix, content in ((".safetensors", data), (".jsonl", sidecar)):
            _write_synced(parts / f"{stem}{suffix}", parts / f"{stem}{suffix}.tmp", content)
    finally:
        if not (parts / f"{stem}.jsonl").exists():
            (parts / f"{stem}.safetensors").unlink(missing_ok=True)
    return number


def _claim(parts: Path, stem: str) -> bool:
    """Whether the name is ours now. From its claim on a writer holds its name as .tmp or as .safetensors; looking for
    the second after making the first leaves no gap in between."""
    claim = parts / f"{stem}.safetensors.tmp"
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    if (parts / f"{stem}.safetensors").exists():
        claim.unlink(missing_ok=True)
        return False
    return True


def _discard_stale(parts: Path) -> None:
    """Remove what killed writers left behind. Files of writers at work are younger than STALE."""
    files = [path for path in parts.iterdir() if not hidden(path.name)]
    committed = {path.stem for path in files if path.suffix == ".jsonl"}
    for path in files:
        ours = path.name.endswith((".safetensors", ".tmp")) and path.is_file()
        if not ours or path.name.partition(".")[0] in committed:
            continue
        try:
            age = time.time() - path.stat().st_mtime
        except FileNotFoundError:  # its writer is at work after all
            continue
        if age > STALE:
            log.info("Removing %s, which its writer never finished.", path)
            path.unlink(missing_ok=True)


def _make_or_join(folder: Path, manifest: Manifest) -> None:
    path = folder / "manifest.json"
    if not path.exists():
        if folder.is_dir() and any(
            p.name != "parts" and not p.name.startswith("manifest.json") and not hidden(p.name)
            for p in folder.iterdir()
        ):
            raise InputError(
                f"{folder} holds other files and no manifest.json: choose a new or empty folder, or a dataset."
            )
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        content = json.dumps({"version": manifest.version} | manifest.to_dict(), indent=2, allow_nan=False)
        _write_synced(path, folder / f"manifest.json.{uuid.uuid4().hex}.tmp", content.encode())
    (folder / "parts").mkdir(exist_ok=True)
    _require_equal(read_manifest(folder), manifest, f"The dataset {folder}", "those given")


def _write_synced(path: Path, temporary: Path, content: bytes) -> None:
    """``path`` holds all of ``content`` or does not change, whenever the process or the power goes."""
    with atomic_write(path, temporary):
        temporary.write_bytes(content)
    if os.name == "posix":  # elsewhere a folder cannot be opened for syncing
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"Writing to the dataset {folder} failed ({error.strerror}): make room or choose another folder, then "
            "run again; what was saved before is whole."
        ) from error


# -- reading ----------------------------------------------------------------------------------------------------------


class NPDReader:
    """Random access to the pairs of a dataset, through memory maps.

    Pairs come in one order, by prompt, seed, shape, item and source, whoever wrote them in whatever parts. Of a pair
    that was written twice the one with the smaller checksum counts. Opening reads every .jsonl and the sizes of the
    tensor files. A pair's checksum is compared when it is first read.

    Args:
        folder: the dataset.
        verify: compare the checksum of everything now.
        skip_corrupt: do that, and leave damaged parts out with a warning that names and counts them.

    Attributes:
        manifest: the dataset's.
        records: a PairRecord per pair.
        prompts: the distinct prompts, sorted.
        parts: the tensor files in use.
        duplicates: how many pairs were found once more.

    Raises:
        InputError: if the folder is no dataset; if parts are damaged and not skipped (all are named); if a part was
            made with other settings than the manifest's.
    """

    def __init__(self, folder: str | Path, *, verify: bool = False, skip_corrupt: bool = False):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        records = _scan(self.folder, self.manifest, verify, skip_corrupt)
        records.sort(key=lambda record: (record.key, record.source_crc32, record.crc32))
        identity = operator.attrgetter("key", "source_crc32")
        self.records = [next(same) for _, same in itertools.groupby(records, key=identity)]
        self.prompts = sorted({record.key.prompt for record in self.records})
        self.parts = sorted({record.part for record in records})
        self.duplicates = len(records) - len(self.records)
        self._maps: dict[Path, Tensor] = {}
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return len(self.records)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_maps": {}}  # another process makes its own

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Source and target noise of one pair, [C, H, W] fp16 each.

        Raises:
            InputError: if the pair's checksum is wrong.
        """
        source, target = self._pair(index).clone()
        return source, target

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Source and target noises of pairs of one shape, [B, C, H, W] fp16 each; raises as indexing does."""
        pairs = torch.stack([self._pair(index) for index in indices])  # [B, 2, C, H, W]
        return pairs[:, 0], pairs[:, 1]

    def _pair(self, index: int) -> Tensor:
        """[2, C, H, W] fp16, a view of the file."""
        record = self.records[index]
        if record.part not in self._maps:
            size = record.part.stat().st_size
            self._maps[record.part] = torch.from_file(str(record.part), shared=False, size=size, dtype=torch.uint8)
        shape = (2, *record.key.shape)
        data = self._maps[record.part][record.offset :][: math.prod(shape) * torch.float16.itemsize]
        if index not in self._checked:
            if zlib.crc32(data.numpy()) != record.crc32:
                raise _damaged(self.folder, {record.part.stem: "a pair's checksum is wrong"}, len(self.parts))
            self._checked.add(index)
        return data.view(torch.float16).view(shape)

    @property
    def scorers(self) -> list[str]:
        """Names of the scorers that scored at least one pair."""
        return sorted({scorer for record in self.records for scorer in record.scores})

    def scores(self, scorer: str) -> Tensor:
        """[N, 2] fp64: raw scores of the source's and the target's image of every pair.

        Raises:
            InputError: if a pair lacks this score.
        """
        missing = sum(scorer not in record.scores for record in self.records)
        if missing:
            raise InputError(
                f"{missing} of {len(self)} pairs in {self.folder} have no score by {scorer!r}: choose among "
                f"{', '.join(self.scorers) or 'none'}, or score them."
            )
        values = [record.scores[scorer] for record in self.records]
        return torch.tensor(values, dtype=torch.float64).view(-1, 2)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 over all pairs and scores, the same for the same set in whatever parts: what a net was fitted on."""
        digest = hashlib.sha256()
        for record in self.records:
            line = json.dumps([record.key, record.crc32, record.scores], sort_keys=True)
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()


def merge(sources: Sequence[str | Path], destination: str | Path) -> int:
    """Copy the parts of datasets with equal settings into one, which may exist; doing it again adds nothing.

    Returns:
        How many parts were copied.

    Raises:
        InputError: as NPDReader does, with every part verified, and if settings differ; before anything is copied.
            Also if the destination is one of the sources, or cannot be written.
    """
    if Path(destination).resolve() in {Path(source).resolve() for source in sources}:
        raise InputError(
            f"The dataset {destination} is to be merged into itself, which would double its pairs: leave it out of the "
            "sources, or give another destination."
        )
    readers = [NPDReader(source, verify=True) for source in sources]
    for reader in readers:
        _require_equal(reader.manifest, readers[0].manifest, f"The dataset {reader.folder}", f"{sources[0]}")
    copied, parts = 0, Path(destination) / "parts"
    with _disk_errors(Path(destination)):
        _make_or_join(Path(destination), readers[0].manifest)
        for part in (part for reader in readers for part in reader.parts):
            sidecar = part.with_suffix(".jsonl").read_bytes()
            worker = f"merged-{hashlib.sha256(sidecar).hexdigest()[:16]}"
            if not any(parts.glob(f"{worker}-*.jsonl")):
                _commit(parts, worker, 0, part.read_bytes(), sidecar)
                copied += 1
    return copied


class _Damage(Exception):
    """What is wrong with one part."""


def _damaged(folder: Path, damage: dict[str, str], count: int) -> InputError:
    named = "; ".join(f"{part}: {what}" for part, what in damage.items())
    return InputError(
        f"{len(damage)} of {count} parts of the dataset {folder} are damaged ({named}): delete their files and make "
        "those pairs again; `npnet inspect` and `npnet fit` can leave them out (--skip-corrupt)."
    )


def _scan(folder: Path, manifest: Manifest, verify: bool = False, skip_corrupt: bool = False) -> list[PairRecord]:
    """The records of all parts, in the order of their names."""
    sidecars = sorted((folder / "parts").glob("[!.]*.jsonl"))
    records, damage = [], {}
    for sidecar in sidecars:
        try:
            part = _read_part(sidecar, verify or skip_corrupt)
        except InputError:  # of a newer version, not damaged
            raise
        except (_Damage, *MALFORMED) as what:
            damage[sidecar.stem] = str(what) if isinstance(what, _Damage) else "its .jsonl has lines of another form"
            continue
        _require_equal(part[0].settings, manifest, f"The part {sidecar}", "its dataset")
        records += part
    if damage:
        error = _damaged(folder, damage, len(sidecars))
        if not skip_corrupt:
            raise error
        log.warning("%s They are left out.", error)
    return records


def _read_part(sidecar: Path, verify: bool) -> list[PairRecord]:
    """Raises _Damage, or one of MALFORMED for lines that no writer makes."""
    content = sidecar.read_bytes()
    head, newline, tail = content.rstrip(b"\n").rpartition(b"\n")
    try:
        crc32 = json.loads(tail)["crc32"]
    except MALFORMED as error:
        raise _Damage("its .jsonl is cut") from error
    body = head + newline
    if zlib.crc32(body) != crc32:
        raise _Damage("the checksum of its .jsonl is wrong")
    header, first, *others = map(json.loads, body.splitlines())
    if header["version"] > VERSION:
        raise InputError(f"{sidecar} was written by a newer version: update this package.")
    tensors = sidecar.with_suffix(".safetensors")
    if not tensors.exists():
        raise _Damage("its .safetensors is missing")
    size = tensors.stat().st_size
    if size != header["bytes"]:
        raise _Damage(f"its .safetensors has {size} bytes instead of {header['bytes']}")
    if verify and zlib.crc32(tensors.read_bytes()) != header["crc32"]:
        raise _Damage("the checksum of its .safetensors is wrong")
    settings = Manifest(**header["settings"])
    return [_record(row, settings, tensors, size) for row in (first, *others)]


def _record(row: dict, settings: Manifest, part: Path, size: int) -> PairRecord:
    """One line of the .jsonl of a part of ``size`` bytes."""
    record = PairRecord(
        key=PairKey(row["prompt"], row["seed"], tuple(row["shape"]), row["item"]),
        scores={scorer: tuple(values) for scorer, values in row["scores"].items()},
        extra=row["extra"],
        source_crc32=row["source_crc32"],
        crc32=row["crc32"],
        settings=settings,
        part=part,
        offset=row["offset"],
    )
    key, checksums = record.key, (record.source_crc32, record.crc32)
    whole = (key.seed, key.item, record.offset, *checksums, *key.shape)
    if not (isinstance(key.prompt, str) and isinstance(record.extra, dict) and all(type(n) is int for n in whole)):
        raise TypeError(f"{row} has entries of other types")
    if len(key.shape) != 3 or min(key.shape) < 1 or not 0 <= record.offset <= size - 4 * math.prod(key.shape):
        raise ValueError(f"{key.shape} at {record.offset} does not lie in {size} bytes")
    if not all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in record.scores.values()):
        raise ValueError(f"{record.scores} are not two finite numbers each")
    return record


def read_manifest(folder: str | Path) -> Manifest:
    """The settings that a dataset was begun with.

    Raises:
        InputError: if the folder is no dataset, its manifest is damaged, or a newer version wrote it.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{folder} is no noise prompt dataset, it has no manifest.json: give a folder that `npnet collect` or "
            "Save Noise Pair has made."
        )
    try:
        values = json.loads(path.read_bytes())
        version = values.pop("version")
        if version <= VERSION:
            return Manifest(**values)
    except MALFORMED as error:
        raise InputError(
            f"{path} is damaged: delete it and run the collection again with the settings it was made with, every part "
            "has its own copy of them."
        ) from error
    raise InputError(f"{path} was written by a newer version: update this package.")
