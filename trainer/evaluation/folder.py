"""One folder, one comparison: what its images are made with is written down and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from npnet_core.atomic_write import atomic_write
from npnet_core.errors import InputError
from npnet_core.hidden import hidden
from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base
from trainer.collecting.redenoising import Redenoising
from trainer.collecting.scorers import LazyScorer
from trainer.evaluation.dino import Dino
from trainer.evaluation.methods import Method

ENDS = 1 << 20  # bytes of the beginning and the end of a file that tell it apart


def suffix(worker: tuple[int, int]) -> str:
    """Of a worker's own files."""
    return "" if worker[1] == 1 else f"-{worker[0]}of{worker[1]}"


def claim(out: Path, worker: tuple[int, int], facts: Mapping[str, str]) -> None:
    """Write down what a folder's images are made with, after comparing it with what every worker has written.

    Raises:
        InputError: if the folder holds another run (it says how it differs), or something else.
    """
    claims = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("made-with*.json"))}
    if not claims and (out / "images").exists():
        raise InputError(f"{out} holds images and no made-with.json: choose a new folder, or the one of an evaluation.")
    differing = {
        f"{name} {theirs[name]}, not {value}"
        for theirs in claims.values()
        for name, value in facts.items()
        if theirs.get(name, value) != value
    }
    if differing:
        named = "; ".join(sorted(differing))
        raise InputError(f"{out} already holds another run ({named}): use its settings or another folder.")
    path = out / f"made-with{suffix(worker)}.json"
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, claims.get(path, {}) | dict(facts))


def facts(
    base: Base,
    scorers: Sequence[Scorer | LazyScorer],
    methods: Sequence[Method],
    redenoising: Redenoising,
    repaint_rounds: int,
    dino: Dino | None = None,
) -> dict[str, str]:
    """What must be equal for all images and scores of a folder. Prompts, seeds, settings, methods and metrics may be
    added."""
    names = {method.name for method in methods}
    return {
        "base model": bases.fingerprint(base)[:16],
        "precision": str(base.dtype).removeprefix("torch."),
        **{f"net {method.name}": method.weights[:16] for method in methods if method.npnet and not method.wrong_prompt},
        **({"inversion": _inversion(base, redenoising)} if "inversion" in names else {}),
        **({"repaint rounds": str(repaint_rounds)} if "repaint" in names else {}),
        **{f"weights of {each.kind}": ends_hash(each.path)[:16] for each in scorers if isinstance(each, LazyScorer)},
        **({"weights of dino": ends_hash(dino.folder)[:16]} if dino is not None else {}),
    }


def _inversion(base: Base, redenoising: Redenoising) -> str:
    by = "" if base.sibling is None else f", by {bases.fingerprint(base.sibling)[:16]}"
    return f"{redenoising}{by}"


def ends_hash(path: Path) -> str:
    """SHA-256 over size, beginning and end of a file, or of all files in a folder whose names do not begin with a dot:
    enough to tell weights apart."""
    digest = hashlib.sha256()
    found = (each for each in path.rglob("*") if each.is_file() and not hidden(each.relative_to(path)))
    for file in [path] if path.is_file() else sorted(found):
        size = file.stat().st_size
        digest.update(str(size).encode())
        with file.open("rb") as content:
            digest.update(content.read(ENDS))
            content.seek(max(0, size - ENDS))
            digest.update(content.read())
    return digest.hexdigest()


def write_json(path: Path, content: object) -> None:
    """Write a file that is there once it is whole."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
