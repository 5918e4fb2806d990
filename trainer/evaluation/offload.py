"""Room on the device: what is not needed for a while waits on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from npnet_core.architectures import GoldenNet
from trainer import bases
from trainer.bases import Base


@contextmanager
def offloaded(base: Base, npnets: Iterable[GoldenNet]) -> Iterator[None]:
    """Within the block base model and nets are on the CPU."""
    nets = [(npnet, next(npnet.parameters()).device) for npnet in npnets]
    for npnet, _ in nets:
        npnet.to("cpu")
    for part in bases.PARTS:
        bases.move(base, part, "cpu")
    bases.free_memory(base.device)
    try:
        yield
    finally:
        for part in () if base.in_turns else bases.PARTS:
            bases.move(base, part, base.device)
        for npnet, device in nets:
            npnet.to(device)
