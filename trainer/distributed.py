"""The processes that torchrun starts, or the only one: which device each has, and sums over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from npnet_core.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process among ``count``; ``rank`` 0 writes the files."""

    rank: int
    count: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes; ``values`` on any device."""
        if self.count == 1:
            return values
        total = values.to(self.device)
        dist.all_reduce(total)
        return total

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag, whether it is set in one of the processes."""
        return self.sum(torch.tensor(flags, dtype=torch.float32)).bool().tolist()

    def gather(self, values: list[T]) -> list[T]:
        """The lists of all processes, one after the other."""
        if self.count == 1:
            return values
        lists: list = [None] * self.count
        dist.all_gather_object(lists, values)
        return [value for part in lists for value in part]

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined(device: str | None) -> Iterator[Process]:
    """Join the other processes of torchrun for the ``with`` block.

    Args:
        device: ``cpu``, ``cuda``, …; by default a GPU if there is one, each process its own.

    Raises:
        InputError: for a device that is not there.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    process = Process(rank, count, find_device(device))
    if process.device.type == "cuda":
        torch.cuda.set_device(process.device)
    if count > 1:
        dist.init_process_group("nccl" if process.device.type == "cuda" else "gloo")
    try:
        yield process
    finally:
        if count > 1:
            dist.destroy_process_group()


def find_device(name: str | None) -> torch.device:
    """The device of that name; by default, and for ``cuda`` alone, this process's own GPU.

    Raises:
        InputError: if there is no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"There is no device {name}: use cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"Device {name} was asked for and there is no GPU here: use cpu.")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def progress_bar(total: int, missing: int, unit: str, desc: str | None = None) -> tqdm:
    """One line for each process of torchrun."""
    line = int(os.environ.get("LOCAL_RANK", 0))
    return tqdm(total=total, initial=total - missing, desc=desc, unit=unit, smoothing=0.1, position=line)
