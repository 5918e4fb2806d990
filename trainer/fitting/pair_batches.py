"""Batches of training pairs as the net sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from npnet_core.architectures import GoldenNet
from npnet_core.config import Config, NPNetConfig
from npnet_core.golden import golden_noise, noise_generator, prompt_chunks, to_square
from npnet_core.layers import SVD, decompose
from npnet_core.npd import NPDReader
from trainer.data.embeddings import Embeddings

if TYPE_CHECKING:
    from trainer.data.encoder import Encoder


class Batch(NamedTuple):
    indices: list[int]  # of the pairs in the dataset
    noise: Tensor  # [B, C, R, R] fp32; [B, C, H, W] for a net of any size
    target: Tensor  # like noise
    prompt: Tensor  # [B, T, D] fp32
    svd: SVD | None  # of the noise; None for a net without that branch
    prompt_mask: Tensor | None = None  # [B, T] bool; None where all are tokens, and for a net of a fixed number of them

    @property
    def inputs(self) -> tuple:
        """What the net is called with."""
        more = self.prompt_mask if self.svd is None else self.svd
        return (self.noise, self.prompt) if more is None else (self.noise, self.prompt, more)


@dataclass(frozen=True)
class Batches:
    """Pairs by index → a :class:`Batch` on ``device``. A pure function of the index, so order and threads are free.

    Singular value decompositions are made here, in the threads of :func:`trainer.data.prefetch.prefetch`, and each time
    anew. Measured on one x86 core: 8.1 ms per pair at the published size (128x128), where forward and backward on it
    take 490 ms; 0.13 ms and 8.5 ms at 16x16. So one thread beside a CPU is enough, 16 feed a GPU about 2,000 pairs per
    second, and a cache on the disk (525 kB per pair, twice the pair itself) would save nothing.
    """

    reader: NPDReader
    embeddings: Embeddings | Encoder
    config: Config
    device: torch.device

    def __call__(self, indices: Sequence[int]) -> Batch:
        pairs = [self.pair(i) for i in indices]
        noise, target = (torch.stack(side) for side in zip(*pairs, strict=True))
        prompt, mask = self.prompts([self.reader.records[i].key.prompt for i in indices])
        svd = None
        if isinstance(self.config, NPNetConfig) and self.config.svd_branch:
            svd = decompose(noise, self.config.tile, self.config.fixed_signs)
        return Batch(
            list(indices),
            noise.to(self.device),
            target.to(self.device),
            prompt.to(self.device),
            svd and SVD(*(part.to(self.device) for part in svd)),
            mask if mask is None else mask.to(self.device),
        )

    def prompts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Prompts [B, T, D] fp32 as the net sees them, T its own number of tokens if that is fixed, and their mask."""
        embeds, mask = self.embeddings.tokens(texts)
        embeds = embeds.float()
        if self.config.any_size:
            return embeds, mask
        return prompt_chunks(embeds, self.config.prompt_tokens, "truncate")[0], None

    def golden(self, npnet: GoldenNet, noise: Tensor, texts: Sequence[str]) -> Tensor:
        """Golden noise of noise [B, C, H, W] for B prompts of the dataset."""
        return golden_noise(npnet, noise, *self.prompts(texts))

    def by_size(self, indices: Sequence[int]) -> list[Batch]:
        """The same pairs in one batch; for a net of any size in one for each size among them."""
        if not self.config.any_size:
            return [self(indices)]
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i in indices:
            sizes.setdefault(self.reader.records[i].key.shape, []).append(i)
        return [self(same) for same in sizes.values()]

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """One pair as the net sees it: [C, R, R] or, for a net of any size, [C, H, W], fp32."""
        source, target = self.reader[index]
        if self.config.any_size:
            return source.float(), target.float()
        return in_net_view(source, target, self.config.resolution)


def in_net_view(source: Tensor, target: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """A pair [C, H, W] of any size as :func:`npnet_core.golden.golden_noise` shows it to the net: [C, R, R] fp32.

    Both are transported with the same fresh noise, so both stay white and z' − z = A_h (x' − x) A_wᵀ.
    """
    source, target = source.float(), target.float()
    if source.shape[-2:] == (resolution, resolution):
        return source, target
    fresh = torch.randn(1, len(source), resolution, resolution, generator=noise_generator(source[None]))[0]
    return to_square(source, resolution, fresh), to_square(target, resolution, fresh)
