"""``npnet convert``: published files → ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from npnet_core.checkpoint import load_npnet, save_npnet

from .options import argument, option


@dataclass(frozen=True)
class Options:
    """Write a published NPNet file as one safetensors file that holds its config and a checksum.

    npnet convert sdxl.pth models/npnet/sdxl.safetensors
    npnet convert --base-model Lykon/dreamshaper-xl-v2-turbo dreamshaper.pth models/npnet/dreamshaper.safetensors
    """

    source: Path = argument("a published NPNet file: .pth or safetensors")
    target: Path = argument("the safetensors file to write")
    base_model: str | None = option(None, "the model the net was trained on, kept in the metadata")


def run(options: Options) -> None:
    npnet = load_npnet(options.source)
    with options.source.open("rb") as file:
        sha256 = hashlib.sha256(file.read()).hexdigest()
    provenance = {"npnet.provenance": f"converted from {options.source.name}, sha256 {sha256}"}
    base_model = {} if options.base_model is None else {"npnet.base_model": options.base_model}
    save_npnet(npnet, options.target, {**npnet.metadata, **provenance, **base_model})
    print(f"{options.source} → {options.target}")
