"""Prompt embeddings beside a dataset: each distinct prompt is encoded once, then read through memory maps.

    DATASET/embeddings/<base>/<prompts>.safetensors    prompt_embeds of n prompts; their hashes

<base> and <prompts> are hashes of the base model's name and of the prompts in the file. Files are written whole or not
at all and never changed, so encoding that was stopped goes on, and several processes can share the work.

Prompts are stored as nets see them (:mod:`npnet_core.prompt_form`). In files without a version, those of 0.1.0,
``prompt_embeds`` is [n, T, D] fp16, which is all that CLIP's prompts need. Version 2 has tokens only, no padding:
``prompt_embeds`` is [Σ lengths, D] with ``lengths`` [n], in fp16, or where a value is beyond that in bf16, which has
fp32's range in as little space and is what the text encoders with such values run in.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.npd import MALFORMED
from npnet_core.prompt_form import canonical
from npnet_core.tensorfile import write_tensors

if TYPE_CHECKING:
    from trainer.bases import Base

log = logging.getLogger(__name__)

VERSION = 2
PROMPTS_PER_FILE = 128  # 40 MB for SDXL; the most that a kill loses


class Embeddings:
    """The encoded prompts of one dataset and base model that are on the disk; opening reads the files' headers.

    Raises:
        InputError: if a file is damaged or of a newer version, or if the files come from base models that differ.
    """

    def __init__(self, dataset: str | Path, base: str):
        self.folder = Path(dataset) / "embeddings" / _hash(base)[:16]
        self.fingerprints: set[str] = set()  # of the base model
        self._rows: dict[str, Tensor] = {}  # hash of a prompt → its tokens [n, D], a view of a file
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            try:
                rows, metadata = _read(path)
                self._rows |= dict(zip(json.loads(metadata["prompts"]), rows, strict=True))
                self.fingerprints.add(metadata["fingerprint"])
            except InputError:  # of a newer version, not damaged
                raise
            except (safetensors.SafetensorError, *MALFORMED) as error:
                raise InputError(
                    f"{path} is damaged ({error}): delete it, its prompts are then encoded again."
                ) from error
        if len(self.fingerprints) > 1 or len({row.shape[1] for row in self._rows.values()}) > 1:
            raise InputError(f"{self.folder} holds embeddings by different base models: delete it and run again.")

    def __contains__(self, prompt: str) -> bool:
        return _hash(prompt) in self._rows

    @property
    def shape(self) -> tuple[int, int]:
        """(T, D) of the longest."""
        return max(tuple(row.shape) for row in self._rows.values())

    def batch(self, prompts: Sequence[str]) -> Tensor:
        """[B, T, D] as stored, T the longest of these; shorter ones are filled up with zeros, see :meth:`mask`."""
        rows = self._of(prompts)
        longest = max(map(len, rows))
        return torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])

    def mask(self, prompts: Sequence[str]) -> Tensor | None:
        """[B, T] bool, True for the tokens of :meth:`batch`; None where all are."""
        lengths = torch.tensor([len(row) for row in self._of(prompts)])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return None if mask.all() else mask

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """:meth:`batch` and :meth:`mask`."""
        return self.batch(prompts), self.mask(prompts)

    def _of(self, prompts: Sequence[str]) -> list[Tensor]:
        return [self._rows[_hash(prompt)] for prompt in prompts]


def _read(path: Path) -> tuple[Sequence[Tensor], dict[str, str]]:
    """The tokens [n, D] of each prompt of a file, views of it, and its metadata.

    Raises:
        InputError: if a newer version wrote it.
        ValueError: for tensors that no version writes, or one of MALFORMED for metadata of another form.
    """
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
        if int(metadata.get("version", 1)) > VERSION:
            raise InputError(f"{path} was written by a newer version: update this package.")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    embeds, lengths = tensors["prompt_embeds"], tensors.get("lengths")
    types = (torch.float16,) if lengths is None else (torch.float16, torch.bfloat16)
    if embeds.ndim != (3 if lengths is None else 2) or embeds.dtype not in types:
        raise ValueError(f"embeddings of shape {list(embeds.shape)} and type {embeds.dtype}")
    if lengths is None:
        return embeds.unbind(), metadata
    counts = lengths.tolist()
    if not all(isinstance(count, int) and count > 0 for count in counts) or sum(counts) != len(embeds):
        raise ValueError(f"{len(embeds)} tokens for prompts of {counts}")
    return embeds.split(counts), metadata


def store_embeddings(
    dataset: str | Path,
    base: str,
    prompts: Sequence[str],
    prompt_embeds: Tensor,
    fingerprint: str = "",
    prompt_mask: Tensor | None = None,
) -> Path:
    """Put encoded prompts beside a dataset, as one file, whose path it returns.

    Args:
        base: the base model's name, as :class:`Embeddings` is asked for it.
        prompt_embeds: [N, T, D], one for each of the prompts, in the form that nets see.
        fingerprint: of the base model's weights.
        prompt_mask: [N, T] bool, True for their tokens, which come first; None where all are.

    Raises:
        InputError: for values that are not finite.
    """
    embeds = prompt_embeds.cpu()
    told = torch.ones(embeds.shape[:2], dtype=torch.bool) if prompt_mask is None else prompt_mask.cpu()
    if not (finite := embeds.isfinite().all(2) | ~told).all():
        raise InputError(
            f"The embedding of {prompts[int((~finite).any(1).nonzero()[0])]!r} has NaN or infinite values: check the "
            f"base model {base}, and whether its text encoder needs another precision."
        )
    rows = stored_type(embeds, prompt_mask)
    hashes = json.dumps([_hash(prompt) for prompt in prompts])
    metadata = {"base": base, "fingerprint": fingerprint, "prompts": hashes}
    if prompt_mask is None and rows.dtype == torch.float16:
        tensors = {"prompt_embeds": rows}
    else:
        tensors = {"prompt_embeds": rows[told], "lengths": told.sum(1)}
        metadata["version"] = str(VERSION)
    folder = Path(dataset) / "embeddings" / _hash(base)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_hash(hashes)[:16]}.safetensors"
    write_tensors(path, tensors, metadata)
    return path


def stored_type(prompt_embeds: Tensor, prompt_mask: Tensor | None) -> Tensor:
    """[N, T, D] finite where there are tokens → the same in fp16, or in bf16 if fp16 does not hold it."""
    half = prompt_embeds.half()
    finite = half.isfinite().all(2)
    return half if (finite if prompt_mask is None else finite | ~prompt_mask).all() else prompt_embeds.bfloat16()


def encoded(base: Base, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Prompts as nets see them, on the CPU: [N, T, D] fp32 and [N, T] bool or None."""
    from trainer import bases

    told = bases.encode(base, prompts, uncond={})  # what is told without a prompt, nets do not see
    embeds, mask = canonical(base.family, told.prompt_embeds, told.prompt_mask)
    return embeds.cpu(), mask if mask is None else mask.cpu()


def stored_bytes(base: Base, prompts: Sequence[str], sample: int = 16) -> float:
    """About how many bytes these prompts take beside a dataset: some of them, evenly spread, are encoded for it."""
    count = min(sample, len(prompts))
    embeds, mask = encoded(base, [prompts[i * len(prompts) // count] for i in range(count)])
    tokens = embeds.shape[:2].numel() if mask is None else int(mask.sum())
    return tokens * embeds.shape[2] * torch.float16.itemsize / count * len(prompts)


def load_text_encoder(base_name: str, *, family: str, device: torch.device, base_config: str | None = None) -> Base:
    """A base model with its text encoders on the device, and nothing else of it there.

    Raises:
        InputError: if it cannot be loaded, or is of another family than the dataset.
    """
    from trainer import bases

    base = bases.load_base(base_name, config=base_config, device=device, parts=("text",))
    if base.family != family:
        raise InputError(
            f"{base_name} is of family {base.family} and the dataset was made with {family}: name a base model of that "
            "family with --base."
        )
    return base


def encode_missing(
    dataset: str | Path,
    base_name: str,
    prompts: Sequence[str],
    *,
    family: str,
    device: torch.device,
    base_config: str | None = None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Encode and store the prompts that are not there yet. The base model is loaded only if there are any, and has left
    memory when this returns.

    Args:
        family: the dataset's base model family.
        share: (i, n), to do the i-th of n parts of the work.

    Raises:
        InputError: if the base model cannot be loaded, is of another family, or is not the one whose embeddings are
            there already.
    """
    embeddings = Embeddings(dataset, base_name)
    missing = sorted({prompt for prompt in prompts if prompt not in embeddings})[share[0] :: share[1]]
    if not missing:
        return
    from trainer import bases

    base = load_text_encoder(base_name, family=family, device=device, base_config=base_config)
    fingerprint = bases.fingerprint(base)
    if embeddings.fingerprints - {fingerprint}:
        raise InputError(
            f"{base_name} is no longer, or not in the same precision, the model that encoded the prompts in "
            f"{embeddings.folder}: delete that folder and run again."
        )
    with tqdm(total=len(missing), desc="encoding", unit="prompt", disable=share[0] > 0) as progress:
        for i in range(0, len(missing), PROMPTS_PER_FILE):
            part = missing[i : i + PROMPTS_PER_FILE]
            embeds, mask = encoded(base, part)
            path = store_embeddings(dataset, base_name, part, embeds, fingerprint, mask)
            if i == 0:
                size = path.stat().st_size / len(part) * len(missing) / 1e9
                log.info("%d prompts are encoded: about %.3g GB in %s.", len(missing), size, path.parent)
            progress.update(len(part))
    del base
    gc.collect()  # pipelines hold themselves in cycles
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
