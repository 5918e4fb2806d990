"""What a base model's network is told with each prompt of a dataset, beside it, for nets that are made of that network.

    DATASET/embeddings/<base>-network/<prompts>.safetensors    the tensors of n prompts, [n, …] each; their hashes

Other nets see one tensor of a prompt (``embeddings.py``), a network pooled vectors and masks too, and all as its own
text encoders give them. Files are written whole or not at all and never changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import safetensors
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.npd import MALFORMED
from npnet_core.tensorfile import write_tensors
from trainer import bases
from trainer.bases import Base, Prompts
from trainer.data.images import text_hash

PROMPTS_PER_FILE = 128


class NetworkInputs:
    """The encoded prompts of one dataset and base model; opening reads the files' headers.

    Raises:
        InputError: if a file is damaged.
    """

    def __init__(self, dataset: str | Path, base: str):
        self.folder = Path(dataset) / "embeddings" / f"{text_hash(base)[:16]}-network"
        self.made_by: set[str] = set()  # fingerprints of the base model
        self._rows: dict[str, dict[str, Tensor]] = {}  # hash of a prompt → [1, …] each, views of a file
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            try:
                with safetensors.safe_open(path, "pt") as file:
                    metadata = file.metadata()
                    inputs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                hashes = json.loads(metadata["prompts"])
                columns = [value.split(1) for value in inputs.values()]
                rows = [dict(zip(inputs, row, strict=True)) for row in zip(*columns, strict=True)]
                self._rows |= dict(zip(hashes, rows, strict=True))
                self.made_by.add(metadata["fingerprint"])
            except (safetensors.SafetensorError, *MALFORMED) as error:
                raise InputError(
                    f"{path} is damaged ({error}): delete it, its prompts are then encoded again."
                ) from error

    def __contains__(self, prompt: str) -> bool:
        return text_hash(prompt) in self._rows

    def batch(self, prompts: Sequence[str]) -> Prompts:
        """Of these prompts, on the CPU, without what the network is told with none."""
        return bases.join([Prompts(self._rows[text_hash(prompt)], {}) for prompt in prompts])


def encode_for_network(
    dataset: str | Path, base: Base, prompts: Sequence[str], *, share: tuple[int, int] = (0, 1)
) -> None:
    """Encode and store the prompts that are not there yet, where the text encoders are.

    Args:
        share: (i, n), to do the i-th of n parts of the work.

    Raises:
        InputError: if the base model is not the one whose inputs are there already.
    """
    inputs = NetworkInputs(dataset, base.source)
    missing = sorted({prompt for prompt in prompts if prompt not in inputs})[share[0] :: share[1]]
    fingerprint = bases.fingerprint(base)
    if inputs.made_by - {fingerprint}:
        raise InputError(
            f"{base.source} is no longer, or not in the same precision, the model that encoded the prompts in "
            f"{inputs.folder}: delete that folder and run again."
        )
    if not missing:
        return
    inputs.folder.mkdir(parents=True, exist_ok=True)
    uncond = {}  # no prompt needs it here
    with tqdm(total=len(missing), desc="encoding", unit="prompt", disable=share[0] > 0) as progress:
        for i in range(0, len(missing), PROMPTS_PER_FILE):
            part = missing[i : i + PROMPTS_PER_FILE]
            hashes = json.dumps([text_hash(prompt) for prompt in part])
            encoded = bases.encode(base, part, uncond=uncond).cond
            write_tensors(
                inputs.folder / f"{text_hash(hashes)[:16]}.safetensors",
                {name: value.cpu() for name, value in encoded.items()},
                {"base": base.source, "fingerprint": fingerprint, "prompts": hashes},
            )
            progress.update(len(part))
