"""Noise pairs as the code of the paper's authors writes them → a dataset of ours.

    FOLDER/…/<index>_<seed>.npz   arr_0: source, arr_1: target, [1, C, H, W] fp16 each; arr_2: index
    CAPTIONS                      lines of JSON: index, seed, caption, original_score_list, optimized_score_list

The score lists have a number per scorer and no names. The code wipes CAPTIONS when it is started again, so pairs may
lack their line.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.hidden import hidden
from npnet_core.npd import MALFORMED, NPDWriter
from trainer.data.textfile import read_text

log = logging.getLogger(__name__)


class Line(NamedTuple):
    """What CAPTIONS says of one pair."""

    index: int
    seed: int
    prompt: str
    scores: dict[str, tuple[float, float]]  # scorer → of the source's and of the target's image


class Imported(NamedTuple):
    """How many pairs became what."""

    written: int
    known: int  # in the dataset already, or twice among the files
    left_out: int


def import_pairs(folder: Path, lines: Sequence[Line], writer: NPDWriter) -> Imported:
    """Append every pair below ``folder`` to a dataset. A damaged file and one without a line are left out, with a
    warning that counts them.

    Raises:
        InputError: if no pair could be used.
    """
    by_index: dict[int, list[Line]] = {}
    for line in lines:
        by_index.setdefault(line.index, []).append(line)
    written, known, damaged, unknown = 0, 0, [], []
    for path in tqdm(find_pairs(folder), unit="pair"):
        try:
            source, target, index = read_pair(path)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            damaged.append(f"{path.name}: {error}")
            continue
        seed = path.stem.partition("_")[2]
        found = [line for line in by_index.get(index, []) if seed in ("", str(line.seed))]
        if len(found) != 1:
            unknown.append(path.name)
        elif writer.add(source, target, prompt=found[0].prompt, seed=found[0].seed, scores=found[0].scores):
            written += 1
        else:
            known += 1
    for names, what in ((damaged, "cannot be read"), (unknown, "have no line of their own")):
        if names:
            log.warning("%d pairs are left out because they %s: %s", len(names), what, "; ".join(names[:5]))
    if written + known == 0:
        raise InputError(
            f"None of the {len(damaged) + len(unknown)} pairs in {folder} could be used: name the file of captions "
            "that was written with them."
        )
    return Imported(written, known, len(damaged) + len(unknown))


def find_pairs(folder: Path) -> list[Path]:
    """The npz files below a folder, by name; those whose name, or whose folder's, begins with a dot are others'."""
    return sorted(path for path in folder.rglob("*.npz") if not hidden(path.relative_to(folder)))


def read_pair(path: Path) -> tuple[Tensor, Tensor, int]:
    """Source and target [C, H, W], and their index.

    Raises:
        OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile: for a damaged file.
    """
    with path.open("rb") as opened, np.load(opened) as file:  # np.load leaves a damaged file open that it opened itself
        source, target = (torch.from_numpy(file[name]) for name in ("arr_0", "arr_1"))
        if source.ndim != 4 or len(source) != 1 or target.shape != source.shape:
            raise ValueError(f"noises of shape {list(source.shape)} and {list(target.shape)}")
        if not (source.isfinite().all() and target.isfinite().all()):
            raise ValueError("NaN or infinite noise")
        return source[0], target[0], int(file["arr_2"])


def read_captions(path: Path, scorers: Sequence[str]) -> list[Line]:
    """Read CAPTIONS; equal lines count once.

    Scores that are 1 throughout are left out with a warning: the authors' HPSv2 wrapper says so of every single image.

    Args:
        scorers: the kinds that the score lists are by, in their order; none to leave scores out.

    Raises:
        InputError: for lines that are not of this form, or another number of scores.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}: name the file of JSON lines that was written with the pairs.")
    lines: set[tuple] = set()
    for number, text in enumerate(read_text(path, "The file of captions").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            pairs = zip(map(float, row["original_score_list"]), map(float, row["optimized_score_list"]), strict=True)
            lines.add((int(row["index"]), int(row["seed"]), str(row["caption"]), tuple(pairs)))
        except MALFORMED as error:
            raise InputError(
                f"{path} does not hold lines of JSON with index, seed, caption, original_score_list and "
                f"optimized_score_list (line {number}: {error}): name the file that was written with the pairs."
            ) from error
    if not lines:
        raise InputError(f"{path} is empty: name the file of JSON lines that was written with the pairs.")
    counts = {len(pairs) for *_, pairs in lines}
    if scorers and counts - {len(scorers)}:
        raise InputError(
            f"{path} has {' and '.join(map(str, counts))} scores per image and {len(scorers)} were named: say with "
            "--scorer by which preference models they are, in their order."
        )
    telling = {}  # scorer → its place in the lists
    for place, kind in enumerate(scorers):
        if all(pairs[place] == (1, 1) for *_, pairs in lines):
            log.warning("%s: every score by %s is 1, which says nothing: these scores are left out.", path, kind)
        else:
            telling[kind] = place
    return [
        Line(index, seed, prompt, {kind: pairs[place] for kind, place in telling.items()})
        for index, seed, prompt, pairs in sorted(lines)
    ]
