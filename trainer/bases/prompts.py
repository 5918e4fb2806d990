"""Prompts as a base model's network is told them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.bases.base import Base
from trainer.bases.memory import take_turn


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts: what the network is told with each of N prompts, and with none (the unconditional branch).

    ``cond`` and ``uncond`` hold the same names; every tensor of ``cond`` is [N, …], of ``uncond`` [1, …]. Where prompts
    differ in length, ``prompt_mask`` [N, T] bool stands beside ``prompt_embeds`` [N, T, D]: True for the tokens that
    the network is told, which come first, and zeros fill up behind them. T may differ between cond and uncond, too.
    """

    cond: dict[str, Tensor]
    uncond: dict[str, Tensor]

    @property
    def prompt_embeds(self) -> Tensor:
        """[N, T, D], what an NPNet sees."""
        return self.cond["prompt_embeds"]

    @property
    def prompt_mask(self) -> Tensor | None:
        """[N, T] bool, True where ``prompt_embeds`` is a token; None where everything is."""
        return self.cond.get("prompt_mask")

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, rows: Sequence[int] | slice) -> Prompts:
        """Some of the prompts, in any order, any number of times."""
        return Prompts({name: value[rows] for name, value in self.cond.items()}, self.uncond)


def join(parts: Sequence[Prompts]) -> Prompts:
    """Prompts of one base model, one after the other."""
    return Prompts(concatenated([part.cond for part in parts]), parts[0].uncond)


def concatenated(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Inputs [Nᵢ, …] of one network, one after the other; shorter prompts with a mask are filled up with zeros."""
    if "prompt_mask" in parts[0]:
        longest = max(part["prompt_mask"].shape[1] for part in parts)
        parts = [_filled_up(part, longest) for part in parts]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _filled_up(inputs: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    missing = length - inputs["prompt_mask"].shape[1]
    return inputs | {
        "prompt_embeds": F.pad(inputs["prompt_embeds"], (0, 0, 0, missing)),
        "prompt_mask": F.pad(inputs["prompt_mask"], (0, missing)),
    }


def by_length(inputs: dict[str, Tensor]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """For a network that takes no mask: the rows [n] of each length among the prompts, and their inputs without filling
    and mask. All rows at once where there is no mask.
    """
    if "prompt_mask" not in inputs:
        embeds = inputs["prompt_embeds"]
        yield torch.arange(len(embeds), device=embeds.device), inputs
        return
    lengths = inputs["prompt_mask"].sum(1)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        told = {name: value[rows] for name, value in inputs.items() if name != "prompt_mask"}
        yield rows, told | {"prompt_embeds": told["prompt_embeds"][:, :length]}


@torch.no_grad()
def encode(base: Base, prompts: Sequence[str], *, batch: int = 32, uncond: dict[str, Tensor] | None = None) -> Prompts:
    """Encode prompts, ``batch`` at a time, where the text encoders are; the result is on ``base.device``.

    As ComfyUI does it for a plain prompt that fits the text encoder: there, parentheses are weights and more than 77 of
    CLIP's tokens make further chunks, here they are cut (diffusers warns), as are Z-Image's behind the 512th.
    ``uncond`` is that of an earlier call, not to be encoded again.
    """
    take_turn(base, "text")
    cond = concatenated([base.encode_prompts(list(prompts[i : i + batch])) for i in range(0, len(prompts), batch)])
    if uncond is None:
        uncond = base.unconditional(cond)
    return Prompts(_for_network(base, cond), _for_network(base, uncond))


def _for_network(base: Base, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.to(base.device, base.dtype if value.is_floating_point() else None) for name, value in inputs.items()
    }
