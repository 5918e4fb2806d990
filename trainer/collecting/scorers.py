"""Preference models as the command line names them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from npnet_core.errors import InputError
from npnet_core.preference import KINDS, Scorer, load_scorer
from npnet_core.preference.files import find_weights
from trainer.bases import Base
from trainer.data.paths import expanded

HELP = f"preference models: KIND or KIND=FILE, any number of them, or none; kinds: {', '.join(KINDS)}"


def load_scorers(names: Sequence[str], base: Base) -> list[Scorer]:
    """Load each of them once, onto the base model's device.

    Args:
        names: ``KIND`` for weights that are on this machine already, ``KIND=FILE`` for others; ``("none",)`` for none.
        base: where it reads with CLIP's vocabulary, the scorers do too.

    Raises:
        InputError: for a kind named twice, and as :func:`npnet_core.preference.load_scorer`.
    """
    files = scorer_files(names)
    if not files:
        return []
    with clip_tokenizer(base) as tokenizer:
        return [load_scorer(kind, path, base.device, tokenizer=tokenizer) for kind, path in files.items()]


def scorer_files(names: Sequence[str]) -> dict[str, str | None]:
    """Kind → file, or None where only the kind was named.

    Raises:
        InputError: for a kind that does not exist, one named twice, or what is no path.
    """
    if tuple(names) == ("none",):
        return {}
    files = {}
    for kind, _, path in (name.partition("=") for name in names):
        if kind not in KINDS:
            raise InputError(f"There is no preference model {kind}: choose some of {', '.join(KINDS)}, or none.")
        if kind in files:
            raise InputError(f"Scorer {kind} was named twice: scores are stored by kind, so name each once.")
        files[kind] = expanded(path) or None
    return files


def check_scorers(names: Sequence[str]) -> None:
    """Refuse, before a base model is loaded, what :func:`load_scorers` would not find."""
    for kind, path in scorer_files(names).items():
        find_scorer(kind, path)


@contextmanager
def clip_tokenizer(base: Base) -> Iterator[str | None]:
    """A folder, for as long as the ``with`` block lasts, with the base model's CLIP tokenizer; None if it has none."""
    if base.clip_tokenizer is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        base.clip_tokenizer.save_pretrained(folder)
        yield folder


@dataclass(frozen=True)
class LazyScorer:
    """A preference model that is loaded when its turn comes.

    Attributes:
        kind, path: one of ``KINDS``, and its file or folder.
        tokenizer: a folder with CLIP's, or None.
        device: where it computes.
    """

    kind: str
    path: Path
    tokenizer: str | None
    device: torch.device

    def load(self) -> Scorer:
        """Raises InputError as :func:`npnet_core.preference.load_scorer`."""
        return load_scorer(self.kind, self.path, self.device, tokenizer=self.tokenizer)


def find_scorer(kind: str, path: str | None) -> Path:
    """The file or folder of a preference model of :data:`KINDS`, without reading it.

    Raises:
        InputError: if there is none; it says what is missing and where it belongs.
    """
    if path is None:
        return find_weights(kind)
    if not Path(path).exists():
        raise InputError(
            f"No weights of {KINDS[kind].title} are at {path}: put {KINDS[kind].file or 'its transformers folder'} "
            "there, or name where they are."
        )
    return Path(path)
