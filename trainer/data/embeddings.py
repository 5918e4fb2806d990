"""Prompt embeddings beside a dataset: each distinct prompt is encoded once, then read through memory maps.

    DATASET/embeddings/<base>/<prompts>.safetensors    prompt_embeds [n, T, D] fp16; hashes of the n prompts

<base> and <prompts> are hashes of the base model's name and of the prompts in the file. Files are written whole or not
at all and never changed, so encoding that was stopped goes on, and several processes can share the work.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors
import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.npd import MALFORMED
from npnet_core.tensorfile import write_tensors

PROMPTS_PER_FILE = 128  # 40 MB for SDXL; the most that a kill loses


class Embeddings:
    """The encoded prompts of one dataset and base model that are on the disk; opening reads the files' headers.

    Raises:
        InputError: if a file is damaged, or if the files come from base models that differ.
    """

    def __init__(self, dataset: str | Path, base: str):
        self.folder = Path(dataset) / "embeddings" / _hash(base)[:16]
        self.fingerprints: set[str] = set()  # of the base model
        self._rows: dict[str, Tensor] = {}  # hash of a prompt → [T, D], a view of a file
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            try:
                with safetensors.safe_open(path, "pt") as file:
                    metadata, rows = file.metadata(), file.get_tensor("prompt_embeds")
                self._rows |= dict(zip(json.loads(metadata["prompts"]), rows, strict=True))
                self.fingerprints.add(metadata["fingerprint"])
                if rows.ndim != 3 or rows.dtype != torch.float16:
                    raise ValueError(f"embeddings of shape {list(rows.shape)} and type {rows.dtype}")
            except (safetensors.SafetensorError, *MALFORMED) as error:
                raise InputError(
                    f"{path} is damaged ({error}): delete it, its prompts are then encoded again."
                ) from error
        if len(self.fingerprints) > 1 or len({row.shape for row in self._rows.values()}) > 1:
            raise InputError(f"{self.folder} holds embeddings by different base models: delete it and run again.")

    def __contains__(self, prompt: str) -> bool:
        return _hash(prompt) in self._rows

    @property
    def shape(self) -> tuple[int, int]:
        """(T, D) of one embedding."""
        return tuple(next(iter(self._rows.values())).shape)

    def batch(self, prompts: Sequence[str]) -> Tensor:
        """[B, T, D] fp16."""
        return torch.stack([self._rows[_hash(prompt)] for prompt in prompts])


def store_embeddings(
    dataset: str | Path, base: str, prompts: Sequence[str], prompt_embeds: Tensor, fingerprint: str = ""
) -> None:
    """Put encoded prompts beside a dataset, as one file.

    Args:
        base: the base model's name, as :class:`Embeddings` is asked for it.
        prompt_embeds: [N, T, D], one for each of the prompts.
        fingerprint: of the base model's weights.

    Raises:
        InputError: for values that fp16 cannot hold.
    """
    rows = prompt_embeds.to("cpu", torch.float16)
    if not rows.isfinite().all():
        bad = int((~rows.isfinite()).flatten(1).any(1).nonzero()[0])
        raise InputError(
            f"The embedding of {prompts[bad]!r} has NaN or values too large for fp16: check the base model {base}."
        )
    folder = Path(dataset) / "embeddings" / _hash(base)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    hashes = json.dumps([_hash(prompt) for prompt in prompts])
    metadata = {"base": base, "fingerprint": fingerprint, "prompts": hashes}
    write_tensors(folder / f"{_hash(hashes)[:16]}.safetensors", {"prompt_embeds": rows}, metadata)


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

    base = bases.load_base(base_name, config=base_config, device=device)
    if base.family != family:
        raise InputError(
            f"{base_name} is of family {base.family} and the dataset was made with {family}: name a base model of that "
            "family with --base."
        )
    fingerprint = bases.fingerprint(base)
    if embeddings.fingerprints - {fingerprint}:
        raise InputError(
            f"{base_name} is no longer, or not in the same precision, the model that encoded the prompts in "
            f"{embeddings.folder}: delete that folder and run again."
        )
    with tqdm(total=len(missing), desc="encoding", unit="prompt", disable=share[0] > 0) as progress:
        for i in range(0, len(missing), PROMPTS_PER_FILE):
            part = missing[i : i + PROMPTS_PER_FILE]
            store_embeddings(dataset, base_name, part, bases.encode(base, part).prompt_embeds, fingerprint)
            progress.update(len(part))
    del base
    gc.collect()  # pipelines hold themselves in cycles
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
