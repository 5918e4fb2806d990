"""Prompts encoded anew for every batch, where a dataset's would not fit on the disk."""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from trainer import bases
from trainer.data.embeddings import encoded, load_text_encoder, stored_type

log = logging.getLogger(__name__)

WARM_UP = 2  # batches before the cost is measured
MEASURED = 8  # batches


class Encoder:
    """What :class:`trainer.data.embeddings.Embeddings` is to batches, without files.

    Of the base model only the text encoders stay, on the device; batches, which are prepared in threads, take turns
    with them. A prompt is rounded as it is in files, so a net learns what it would learn from them.
    """

    def __init__(self, base_name: str, *, family: str, device: torch.device, base_config: str | None = None):
        """Raises InputError as :func:`trainer.data.embeddings.load_text_encoder`."""
        base = load_text_encoder(base_name, family=family, device=device, base_config=base_config)
        for part in ("network", "vae"):
            bases.move(base, part, "meta")  # which holds no weights
        bases.move(base, "text", device)
        self._base = dataclasses.replace(base, in_turns=False)  # nothing is left to take turns with
        gc.collect()
        self._turn = threading.Lock()
        self._seconds: list[float] = []

    @property
    def shape(self) -> tuple[int, int]:
        """(T, D) of the longest prompt that the base model takes."""
        return self._base.prompt_tokens, self._base.prompt_dim

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """As :meth:`trainer.data.embeddings.Embeddings.tokens`."""
        distinct = sorted(set(prompts))
        rows = [distinct.index(prompt) for prompt in prompts]
        with self._turn:
            start = time.perf_counter()
            embeds, mask = encoded(self._base, distinct)
            self._tell(time.perf_counter() - start, len(distinct))
        embeds = stored_type(embeds, mask)[rows]
        return embeds, None if mask is None or mask.all() else mask[rows]

    def _tell(self, seconds: float, prompts: int) -> None:
        """Log what encoding costs, once."""
        self._seconds.append(seconds)
        if len(self._seconds) == WARM_UP + MEASURED:
            mean = sum(self._seconds[WARM_UP:]) / MEASURED
            held = sum(p.numel() * p.element_size() for m in self._base.modules("text") for p in m.parameters())
            words = "Without a cache the text encoder takes %.3g seconds of every batch (%d prompts) and %.3g GB of %s."
            with tqdm.external_write_mode():  # below the bar of the fit
                log.info(words, mean, prompts, held / 1e9, self._base.device)
