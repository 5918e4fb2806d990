"""What a net that is trained on preference models does for prompts that it is not trained on: is it what they mean?

Whoever is trained on a judge learns the judge's taste too. So beside the scores that are trained on there are, for the
same prompts and seeds: a scorer that is only watched; the wrong-prompt control, noise made for another prompt; how far
the images of one prompt lie from each other. All against images of plain noise. Scores are the exact ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from npnet_core.architectures import GoldenNet
from npnet_core.preference import Scorer
from trainer import bases
from trainer.bases import Base, Schedule
from trainer.distributed import Process

SEEDS = range(1_000_000, 1_000_004)  # the images of each prompt
PATIENCE = 3  # looks in a row


class Look(NamedTuple):
    """P prompts with S images each."""

    scores: dict[str, Tensor]  # by kind, [P, S]
    diversity: Tensor  # [P]: root mean square between two images of a prompt, mean over all pairs
    change: Tensor  # [P]: root mean square of golden − noise


@dataclass(frozen=True)
class HeldOut:
    """Prompts that are looked at, of all processes together, and what makes and judges their images.

    Args:
        rewards, watched: scorers that are trained on, and those that are not; by kind.
        process: makes every so many-th prompt's images.
    """

    base: Base
    prompts: tuple[str, ...]
    schedule: Schedule
    cfg: float
    height: int | None
    width: int | None
    rewards: dict[str, Scorer]
    watched: dict[str, Scorer]
    process: Process

    @cached_property
    def plain(self) -> Look:
        """Of plain noise, the same in every look."""
        return self.look(None)

    def metrics(self, npnet: GoldenNet) -> dict[str, float]:
        """What the log says of the net, in eval mode. Gains are against plain noise with the same prompt and seed;
        those without a scorer's name are in standard deviations of its scores of plain noise, the mean over scorers.
        """
        plain, golden = self.plain, self.look(npnet)
        metrics, in_deviations = {}, {}
        for kind, scores in golden.scores.items():
            gain = scores - plain.scores[kind]
            in_deviations[kind] = self.deviations(kind, scores)
            metrics |= {
                f"validation_{kind}": scores.mean().item(),
                f"validation_{kind}_gain": gain.mean().item(),
                f"validation_{kind}_wins": ((gain > 0) + 0.5 * (gain == 0)).mean().item(),
            }
        metrics["trained_gain"] = mean([in_deviations[kind] for kind in self.rewards])
        if self.watched:
            metrics["watched_gain"] = mean([in_deviations[kind] for kind in self.watched])
        if len(self.prompts) > 1:
            wrong = self.look(npnet, wrong_prompt=True)
            metrics["wrong_prompt_gain"] = mean([self.deviations(kind, wrong.scores[kind]) for kind in self.rewards])
        return metrics | {
            "diversity": (golden.diversity.mean() / plain.diversity.mean()).item(),
            "change": golden.change.square().mean().sqrt().item(),
        }

    def deviations(self, kind: str, scores: Tensor) -> float:
        """The mean gain of scores [P, S] in standard deviations."""
        plain = self.plain.scores[kind]
        return ((scores - plain).mean() / plain.std().clamp(min=1e-12)).item()

    def look(self, npnet: GoldenNet | None, wrong_prompt: bool = False) -> Look:
        """At the images of golden noise, or of plain noise for None.

        Args:
            wrong_prompt: the noise is made for the next prompt of the list, the images are not.
        """
        rank, count = self.process.rank, self.process.count
        mine, rows = range(rank, len(self.prompts), count), []
        for i in tqdm(mine, desc="held-out prompts", unit="prompt", leave=False, disable=rank > 0):
            prompt = self.prompts[i]
            other = self.prompts[(i + 1) % len(self.prompts)] if wrong_prompt else prompt
            images, change = self.images(npnet, prompt, other, SEEDS)
            scores = {
                kind: scorer.score(images.to(self.base.device), [prompt] * len(images)).tolist()
                for kind, scorer in (self.rewards | self.watched).items()
            }
            diversity = torch.pdist(images.flatten(1)).mean().item() / math.sqrt(images[0].numel())
            rows.append((i, scores, diversity, change))
        rows = [row for _, *row in sorted(self.process.gather(rows), key=lambda row: row[0])]
        scores, diversity, change = zip(*rows, strict=True)
        kinds = {kind: torch.tensor([each[kind] for each in scores]) for kind in scores[0]}
        return Look(kinds, torch.tensor(diversity), torch.tensor(change))

    @torch.no_grad()
    def images(
        self, npnet: GoldenNet | None, prompt: str, noise_prompt: str, seeds: Sequence[int]
    ) -> tuple[Tensor, float]:
        """Images [S, H, W, 3] in 0..1 of a prompt, on the CPU, from golden noise for ``noise_prompt``; and how far that
        is from the noise."""
        told, noise_told = (bases.encode(self.base, [text])[[0] * len(seeds)] for text in (prompt, noise_prompt))
        noise = bases.initial_noise(self.base, seeds, self.height, self.width)
        golden = noise if npnet is None else bases.golden(self.base, npnet, noise, noise_told)
        latents = bases.sample(self.base, golden, told, self.schedule, self.cfg, seeds=seeds)
        return bases.decode(self.base, latents), (golden - noise).square().mean().sqrt().item()


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def hacked(rows: Sequence[dict]) -> bool:
    """Whether, in the log, the trained-on scores rose and the watched ones fell at each of the last looks."""
    looks = [(row["trained_gain"], row["watched_gain"]) for row in rows if row.get("watched_gain") is not None]
    looks = looks[-PATIENCE - 1 :]
    return len(looks) > PATIENCE and all(b[0] > a[0] and b[1] < a[1] for a, b in pairwise(looks))
