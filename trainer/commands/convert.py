"""``npnet convert``: published files → ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.errors import InputError
from npnet_core.preference import KINDS, convert_scorer
from npnet_core.tensorfile import file_hash
from trainer import bases
from trainer.bases import PRESETS, default_preset
from trainer.collecting.manifest import manifest, open_dataset
from trainer.collecting.recipe import preset_recipe
from trainer.commands.options import argument, option
from trainer.data.file_kind import file_kind
from trainer.data.released import import_pairs, read_captions


@dataclass(frozen=True)
class Options:
    """Write published files in our own formats: what SOURCE is, is found out.

    npnet convert sdxl.pth models/npnet/sdxl.safetensors
    npnet convert --base-model Lykon/dreamshaper-xl-v2-turbo dreamshaper.pth models/npnet/dreamshaper.safetensors
    npnet convert HPS_v2.1_compressed.pt models/preference/HPS_v2.1.safetensors
    npnet convert --captions SDXL_step_10_training.json --base-model models/sdxl-base noise_pairs datasets/released

    An NPNet gets its config and a checksum inside, a preference model its kind and sizes. Noise pairs that the code of
    the paper's authors has written become a dataset; their settings are in no file, so say how they were made if it was
    not like the preset.
    """

    source: Path = argument("NPNet, preference model, or a folder of pairs (npz)")
    target: Path = argument("the safetensors file, or the dataset's folder, to write")
    base_model: str | None = option(
        None, "of an NPNet: kept in the metadata; of pairs: folder or hub id, it is read", path=True
    )
    kind: str | None = option(None, f"of a preference model that does not tell: one of {', '.join(KINDS)}")
    captions: Path | None = option(None, "of pairs: the file of JSON lines that was written with them")
    scorer: tuple[str, ...] = option(("hpsv2.1",), "of pairs: what scored them, in the order of the lists, or none")
    preset: Literal[tuple(PRESETS)] | None = option(
        None, "of pairs: the paper's settings (default: the first of the base model's family; sdxl for SD)"
    )
    steps: int | None = option(None, "of pairs (default: the preset's)")
    cfg: float | None = option(None, "of pairs: guidance of the denoising step (default: the preset's)")
    inversion_cfg: float | None = option(None, "of pairs: guidance of the inversion step (default: the preset's)")
    rounds: int = option(1, "of pairs: T_max of the authors' code")


def run(options: Options) -> None:
    what = file_kind(options.source)
    if what == "npnet":
        convert_npnet(options.source, options.target, options.base_model)
    elif what == "preference model":
        convert_scorer(options.source, options.target, options.kind)
    elif what == "released pairs":
        convert_pairs(options)
    else:
        raise InputError(f"{options.source} is a {what} of ours already: there is nothing to convert.")
    print(f"{options.source} ({what}) → {options.target}")


def convert_npnet(source: Path, target: Path, base_model: str | None) -> None:
    npnet = load_npnet(source)
    entries = {"npnet.provenance": f"converted from {source.name}, sha256 {file_hash(source)}"}
    if base_model is not None:
        entries["npnet.base_model"] = base_model
    save_npnet(npnet, target, {**npnet.metadata, **entries})


def convert_pairs(options: Options) -> None:
    """The base model is only asked for its family and its noise levels."""
    if options.captions is None or options.base_model is None:
        raise InputError(
            f"{options.source} holds noise pairs: name the JSON lines that were written with them (--captions) and the "
            "base model they were made with (--base-model)."
        )
    scorers = () if options.scorer == ("none",) else options.scorer
    lines = read_captions(options.captions, scorers)
    base = bases.load_base(options.base_model, precision="fp16")
    recipe = preset_recipe(
        options.preset or default_preset(base),
        steps=options.steps,
        cfg=options.cfg,
        inversion_cfg=options.inversion_cfg,
        rounds=options.rounds,
        inversion="released",
    )
    settings = manifest(base, recipe, list(lines[0].scores))
    with open_dataset(options.target, settings, worker="released") as writer:
        imported = import_pairs(options.source, lines, writer)
    print(f"{imported.written} pairs written, {imported.known} there already, {imported.left_out} left out")
