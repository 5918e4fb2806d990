"""Prompts as a base model's network is told them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.bases.base import Base


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts: what the network is told with each of N prompts, and with none (the unconditional branch).

    ``cond`` and ``uncond`` hold the same names; every tensor of ``cond`` is [N, …], of ``uncond`` [1, …], so a family
    whose prompts differ in length pads them to one and keeps a mask.
    """

    cond: dict[str, Tensor]
    uncond: dict[str, Tensor]

    @property
    def prompt_embeds(self) -> Tensor:
        """[N, T, D], what an NPNet sees."""
        return self.cond["prompt_embeds"]

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, rows: Sequence[int] | slice) -> Prompts:
        """Some of the prompts, in any order, any number of times."""
        return Prompts({name: value[rows] for name, value in self.cond.items()}, self.uncond)


def join(parts: Sequence[Prompts]) -> Prompts:
    """Prompts of one base model, one after the other."""
    cond = {name: torch.cat([part.cond[name] for part in parts]) for name in parts[0].cond}
    return Prompts(cond, parts[0].uncond)


@torch.no_grad()
def encode(base: Base, prompts: Sequence[str], *, batch: int = 32, uncond: dict[str, Tensor] | None = None) -> Prompts:
    """Encode prompts, ``batch`` at a time, where the text encoders are; the result is on ``base.device``.

    As the model's own pipeline does it, and ComfyUI for a plain prompt that fits T tokens: there, parentheses are
    weights and a longer prompt makes further chunks, here it is cut (diffusers warns). ``uncond`` is that of an earlier
    call, not to be encoded again.
    """
    chunks = [base.encode_prompts(list(prompts[i : i + batch])) for i in range(0, len(prompts), batch)]
    cond = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    if uncond is None:
        uncond = base.unconditional(cond)
    return Prompts(_for_network(base, cond), _for_network(base, uncond))


def _for_network(base: Base, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.to(base.device, base.dtype if value.is_floating_point() else None) for name, value in inputs.items()
    }
