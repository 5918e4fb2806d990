"""Preference models as the command line names them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

from npnet_core.errors import InputError
from npnet_core.preference import KINDS, Scorer, load_scorer

from .bases import Base

HELP = f"preference models: KIND or KIND=FILE, any number of them, or none; kinds: {', '.join(KINDS)}"


def load_scorers(names: Sequence[str], base: Base) -> list[Scorer]:
    """Load each of them once, onto the base model's device.

    Args:
        names: ``KIND`` for weights that are on this machine already, ``KIND=FILE`` for others; ``("none",)`` for none.
        base: where it reads with CLIP's vocabulary, the scorers do too.

    Raises:
        InputError: for a kind named twice, and as :func:`npnet_core.preference.load_scorer`.
    """
    if tuple(names) == ("none",):
        return []
    files = {}
    for kind, _, path in (name.partition("=") for name in names):
        if kind in files:
            raise InputError(f"Scorer {kind} was named twice: scores are stored by kind, so name each once.")
        files[kind] = path or None
    with tempfile.TemporaryDirectory() as folder:
        words = None
        if base.family != "hunyuan-dit":  # which reads with BERT's
            base.pipe.tokenizer.save_pretrained(folder)
            words = folder
        return [load_scorer(kind, path, base.device, tokenizer=words) for kind, path in files.items()]
