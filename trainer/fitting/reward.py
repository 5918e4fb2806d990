"""Golden noise by reward: a net learns what preference models like of the images that a few-step model makes of it.

HyperNoise (Eyring et al., arXiv 2508.09968): with f(x, c) = golden − x, the base model g and rewards rᵢ

    loss = λ·½·mean(f²) − Σ wᵢ·rᵢ(g(x + f, c))

The first term keeps golden noise close to noise as g knows it: ½‖f‖² is the KL divergence between them while f changes
slowly with x. There is no dataset: noises are drawn anew at every step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from npnet_core.adapter import AdapterConfig
from npnet_core.architectures import GoldenNet
from npnet_core.config import Config
from npnet_core.errors import InputError
from npnet_core.golden import prompt_chunks
from npnet_core.preference import KINDS, Scorer
from npnet_core.preference.files import find_weights
from npnet_core.prompt_form import canonical
from trainer import bases
from trainer.bases import Base, Prompts, Schedule
from trainer.collecting.scorers import check_scorers, load_scorers
from trainer.data.prompts import read_prompts
from trainer.distributed import Process
from trainer.fitting.adapters import OPTIMIZER, is_adapter, starting_adapter
from trainer.fitting.build_net import NetInputs, common_resolution, starting_net
from trainer.fitting.folder import check_folder
from trainer.fitting.held_out import PATIENCE, HeldOut, hacked
from trainer.fitting.metrics import Losses
from trainer.fitting.reward_page import write_page, write_pictures
from trainer.fitting.settings import NOT_COMPILED, Reward, Settings
from trainer.fitting.split import held_out_prompts

log = logging.getLogger(__name__)

# HyperNoise's (arguments.py and rewards/ of its code) in the units of our scores: its PickScore and CLIPScore are
# 100·cos, our CLIPScore is 2.5·cos. Not published: HPSv2, taken as HPSv2.1, and MPS, taken as PickScore, whose scale it
# has.
WEIGHTS = {"hpsv2": 5.0, "hpsv2.1": 5.0, "imagereward": 1.0, "pickscore": 0.05, "clipscore": 0.4, "mps": 0.05}
WATCHES = ("pickscore", "imagereward", "hpsv2.1", "hpsv2", "mps", "aesthetic", "clipscore")  # the first that is there
LOOKED_AT = 32  # held-out prompts at most: enough for a trend, and few images


class Batch(NamedTuple):
    samples: list[int]
    prompts: list[str]


@dataclass(frozen=True)
class RewardObjective:
    """:class:`trainer.fitting.objective.Objective` of preference models; samples are the numbers of prompts.

    Attributes:
        rewards, weights: the scorers that are trained on, and what each counts; by kind.
        uncond: what the base model is told without a prompt.
        held_out: what looks at the prompts of ``validation``.
        net: of the net.
    """

    unit: ClassVar[str] = "prompt"
    settings: Reward
    out: Path
    base: Base
    uncond: dict[str, Tensor]
    prompts: list[str]
    training: list[int]
    validation: list[int]
    rewards: dict[str, Scorer]
    weights: dict[str, float]
    held_out: HeldOut
    net: Config

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256("\n".join([bases.fingerprint(self.base), *self.prompts]).encode()).hexdigest()

    def prepare(self, samples: Sequence[int]) -> list[Batch]:
        return [Batch(list(samples), [self.prompts[i] for i in samples])]

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Of noises from torch's global generator, which the loop seeds for every step."""
        seeds = torch.randint(2**63 - 1, (len(batch.samples),)).tolist()
        told = bases.encode(self.base, batch.prompts, uncond=self.uncond)
        noise = bases.initial_noise(self.base, seeds, self.settings.height, self.settings.width).to(self.base.device)
        golden = model(noise, *self.net_prompt(told))
        rewards, gradient = self.rewarded(golden, told, batch.prompts, seeds)
        half_square = 0.5 * (golden - noise).float().square().mean((1, 2, 3))
        reward = rewards @ rewards.new_tensor(list(self.weights.values()))
        along = (gradient * golden).sum((1, 2, 3))  # its gradient is that of the rewards
        loss = self.settings.penalty * half_square - (along - along.detach() + reward.to(along))
        others = torch.cat([rewards, half_square.detach().cpu()[:, None]], 1)
        return Losses(batch.samples, loss, torch.zeros_like(loss), others)

    def net_prompt(self, told: Prompts) -> list:
        """The prompts as the net is called with them: embeddings and, where there is padding, the mask; or what
        predicts with an adapter."""
        if isinstance(self.net, AdapterConfig):
            return [bases.predictor_of(self.base, told)]
        embeds, mask = canonical(self.base.family, told.prompt_embeds, told.prompt_mask)
        if not self.net.any_size:
            return prompt_chunks(embeds, self.net.prompt_tokens, "truncate")[:1]
        return [embeds] if mask is None else [embeds, mask]

    def rewarded(
        self, golden: Tensor, told: Prompts, prompts: Sequence[str], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The rewards [B, K] of golden noise [B, C, h, w], on the CPU, and the gradient [B, C, h, w] of their weighted
        sum with respect to it, clipped for each image: a few of them are steep, and would decide every step.

        One scorer after the other, each down to the images, then through the base model: no two graphs at once.
        """
        x = golden.detach().float().requires_grad_()
        with torch.autocast(x.device.type, enabled=False):  # the base model has a precision of its own
            images = bases.generate(self.base, x, told, self.held_out.schedule, self.settings.cfg, seeds=seeds)
        seen = images.detach().requires_grad_()
        rewards, of_images = [], torch.zeros_like(seen)
        for kind, scorer in self.rewards.items():
            reward = scorer.reward(seen, prompts)
            of_images += self.weights[kind] * torch.autograd.grad(reward.sum(), seen)[0]
            rewards.append(reward.detach().float().cpu())
        (gradient,) = torch.autograd.grad(images, x, of_images)
        norm = gradient.flatten(1).norm(dim=1)[:, None, None, None]
        return torch.stack(rewards, 1), gradient * (self.settings.reward_clip / norm.clamp(min=1e-12)).clamp(max=1)

    def metrics(self, name: str, total: Tensor) -> dict[str, float]:
        loss, _, count, *rewards, half_square = total.tolist()
        scores = {kind: value / count for kind, value in zip(self.rewards, rewards, strict=True)}
        return {
            f"{name}_loss": loss / count,
            f"{name}_reward": sum(self.weights[kind] * score for kind, score in scores.items()),
            **{f"{name}_{kind}": score for kind, score in scores.items()},
            f"{name}_change": math.sqrt(2 * half_square / count),
        }

    def validate(self, npnet: GoldenNet, process: Process, batch: int, threads: int) -> dict[str, float]:
        """:meth:`trainer.fitting.held_out.HeldOut.metrics`; none without held-out prompts."""
        return self.held_out.metrics(npnet.eval()) if self.validation else {}

    def show(self, npnet: GoldenNet, step: int, rows: Sequence[dict]) -> None:
        """Pictures of some held-out prompts, and the page OUT/report.html with all that there are."""
        if self.validation:
            write_pictures(self.out, self.held_out, npnet.eval(), step)
            write_page(self.out, self.held_out, rows)

    def stop(self, rows: Sequence[dict]) -> str | None:
        if not hacked(rows):
            return None
        trained, watched = (", ".join(scorers) for scorers in (self.rewards, self.held_out.watched))
        sentence = (
            f"for held-out prompts {trained}, which it is trained on, rose at each of the last {PATIENCE} looks while "
            f"{watched} fell: it has begun to please its judges only"
        )
        if self.settings.stop:
            return f"{sentence}. Go on all the same with --no-stop"
        log.warning("Look at the pictures: %s.", sentence)
        return None

    def progress(self, metrics: dict[str, float]) -> str:
        return f"training: reward {metrics['train_reward']:.4g}, change {metrics['train_change']:.3f}"

    def conclusion(self, metrics: dict[str, float]) -> list[str]:
        if not metrics:
            return []
        gains = [
            f"{metrics[f'validation_{kind}_gain']:+.4g} in {kind} ({words}, "
            f"{metrics[f'validation_{kind}_wins']:.1%} won)"
            for scorers, words in ((self.rewards, "trained on"), (self.held_out.watched, "watched"))
            for kind in scorers
        ]
        sentences = [f"For prompts it never saw it gains {'; '.join(gains)}. Diversity {metrics['diversity']:.2f}."]
        if (wrong := metrics.get("wrong_prompt_gain", 0)) > 0.5 * metrics["trained_gain"] > 0:
            share = wrong / metrics["trained_gain"]
            sentences.append(
                f"{share:.0%} of the gain stays when the noise is made for another prompt: that much is style."
            )
        return sentences

    def broken(self, samples: Sequence[int]) -> str:
        named = "; ".join(f"prompt {self.prompts[i]!r}" for i in samples[:3])
        return f"({named}): leave these prompts out, or try --precision fp32"

    def metadata(self) -> dict[str, str]:
        kept = ("penalty", "reward_clip", "denoising_steps", "cfg")
        return {
            "npnet.base_model": self.settings.base,
            "npnet.reward": json.dumps(
                {
                    "scorers": self.weights,
                    "watched": list(self.held_out.watched),
                    "prompts": len(self.training),
                    "sha256": self.hash,
                    "sampler": self.held_out.schedule.sampler,
                    "spacing": self.held_out.schedule.spacing,
                    **{name: getattr(self.settings, name) for name in kept},
                }
            ),
        }


def prepare_reward(
    settings: Settings, process: Process, scorers: Mapping[str, Scorer] | None = None
) -> tuple[Settings, GoldenNet, RewardObjective]:
    """Everything that a fit on preference models works with.

    Args:
        scorers: by kind, those that the settings name and that need not be loaded: of your own, for example.

    Returns:
        the settings with everything said that they leave open, the net, the objective.

    Raises:
        InputError: for prompts, a folder, models or files that do not fit.
    """
    reward, training = settings.objective, settings.training
    scorers = scorers or {}
    reward = dataclasses.replace(reward, watch=watching(reward, scorers))
    settings = dataclasses.replace(settings, objective=reward)
    check_folder(settings)
    weights = weights_of(reward)
    Schedule(reward.sampler, reward.denoising_steps, reward.spacing)  # complains before a model is loaded
    prompts = read_prompts(reward.prompts, reward.column)
    validation = held_out_prompts(prompts, reward.validation, training.seed)
    check_scorers(unloaded(reward.scorer, scorers))
    check_scorers(unloaded(reward.watch, scorers))

    base = load_few_step_model(settings, process, adapter=is_adapter(settings.net))
    bases.check_guidance(base, reward.cfg)
    shape = bases.latent_shape(base, reward.height, reward.width)
    trailing = None if base.prediction == "flow_prediction" else "trailing"
    schedule = Schedule(reward.sampler, reward.denoising_steps, reward.spacing or trailing)
    level = bases.levels(base, schedule, shape)[0]
    rewards, watched = (by_kind(names, scorers, base) for names in (reward.scorer, reward.watch))
    for scorer in rewards.values():
        if not scorer.differentiable:
            raise InputError(
                f"The scores of {scorer.kind} have no gradient, so no net can be trained on it: name it with --watch, "
                "and another one with --scorer."
            )
    held_out = HeldOut(
        base=base,
        prompts=tuple(validation[:LOOKED_AT]),
        schedule=schedule,
        cfg=reward.cfg,
        height=reward.height,
        width=reward.width,
        rewards=rewards,
        watched=watched,
        process=process,
    )
    if is_adapter(settings.net):
        npnet = starting_adapter(settings, base, level, reward.cfg, common_resolution([shape[1:]]))
    else:
        inputs = NetInputs(base.family, shape[0], shape[1], base.prompt_tokens, base.prompt_dim)
        npnet = starting_net(settings.net, inputs, training.seed)
    npnet.to(process.device)
    if not npnet.config.any_size and shape[1:] != (npnet.config.resolution,) * 2:
        raise InputError(
            f"Images of {shape[2] * base.pixels}x{shape[1] * base.pixels} came for a net of the architecture "
            f"{npnet.config.architecture}, which sees squares of {npnet.config.resolution * base.pixels}: give "
            "--height and --width so, or --arch unet."
        )
    log.info("%s", memory(base, [*rewards.values(), *watched.values()], npnet))
    if not validation:
        log.warning("No prompt is held out, so nothing tells whether images get better or only please their judges.")
    left_out = set(validation)
    objective = RewardObjective(
        settings=reward,
        out=settings.out,
        base=base,
        uncond=bases.encode(base, [""]).uncond,
        prompts=prompts,
        training=[i for i, prompt in enumerate(prompts) if prompt not in left_out],
        validation=[i for i, prompt in enumerate(prompts) if prompt in left_out],
        rewards=rewards,
        weights=weights,
        held_out=held_out,
        net=npnet.config,
    )
    return settings, npnet, objective


def load_few_step_model(settings: Settings, process: Process, adapter: bool) -> Base:
    """The base model without gradients of its own; between the blocks of network and autoencoder activations are kept,
    within them computed twice.

    Args:
        adapter: whether the net is one.
    """
    reward, net = settings.objective, settings.net
    if adapter and settings.training.compile:
        raise InputError(NOT_COMPILED)
    precision = net.base_precision or settings.training.precision
    base = bases.load_base(reward.base, config=reward.base_config, device=process.device, precision=precision)
    for module in (module for part in bases.PARTS for module in base.modules(part)):
        module.requires_grad_(False)
        if settings.runtime.checkpointing and getattr(module, "_supports_gradient_checkpointing", False):
            module.enable_gradient_checkpointing()
    if settings.runtime.checkpointing and adapter:
        bases.save_memory(base)
    return base


def memory(base: Base, scorers: Sequence[Scorer], npnet: GoldenNet) -> str:
    """A sentence about the memory that fitting needs, as far as it follows from the weights."""
    weights = sum(bases.weight_bytes(base).values())
    judges = sum(weight.numel() * weight.element_size() for scorer in scorers for weight in scorer.model.parameters())
    trained = sum(parameter.numel() for parameter in npnet.parameters())
    smaller = ", or give --precision bf16" if base.dtype == torch.float32 else ""
    return (
        f"Fitting needs {weights / 1e9:.2f} GB for {base.source} ({str(base.dtype).split('.')[-1]}), "
        f"{judges / 1e9:.2f} GB for preference models, {OPTIMIZER * trained / 1e9:.2f} GB for {trained:,} trained "
        "numbers with gradients and optimizer, and what a batch computes on top: if that does not fit, lower --batch "
        f"and raise --accumulate{smaller}."
    )


def kind_of(name: str) -> str:
    """KIND of ``KIND=FILE`` or ``KIND``."""
    return name.partition("=")[0]


def unloaded(names: Sequence[str], scorers: Mapping[str, Scorer]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in scorers) or ("none",)


def by_kind(names: Sequence[str], scorers: Mapping[str, Scorer], base: Base) -> dict[str, Scorer]:
    """The scorers of these names in their order, loaded where they are not among ``scorers``."""
    loaded = {scorer.kind: scorer for scorer in load_scorers(unloaded(names, scorers), base)} | dict(scorers)
    return {kind_of(name): loaded[kind_of(name)] for name in names if name != "none"}


def weights_of(reward: Reward) -> dict[str, float]:
    """Kind → weight.

    Raises:
        InputError: for a scorer without a weight.
    """
    kinds = [kind_of(name) for name in reward.scorer]
    if reward.weight is not None:
        return dict(zip(kinds, reward.weight, strict=True))
    if without := [kind for kind in kinds if kind not in WEIGHTS]:
        raise InputError(f"There is no published weight for {', '.join(without)}: give one for each scorer (--weight).")
    return {kind: WEIGHTS[kind] for kind in kinds}


def watching(reward: Reward, scorers: Mapping[str, Scorer]) -> tuple[str, ...]:
    """The names of those that are watched: the given ones, or the first of :data:`WATCHES` that is on this machine.

    Raises:
        InputError: for one that is trained on.
    """
    trained = {kind_of(name) for name in reward.scorer}
    if reward.watch is not None:
        if both := sorted(trained & {kind_of(name) for name in reward.watch}):
            raise InputError(
                f"{', '.join(both)} came as --scorer and as --watch: who is trained on is no witness, so watch another."
            )
        return reward.watch
    for kind in WATCHES:
        if kind not in trained:
            try:
                find_weights(kind)
            except InputError:
                continue
            log.info("%s is watched and not trained on; name another with --watch.", KINDS[kind].title)
            return (kind,)
    log.warning(
        "Nothing is watched: a net learns its judges' taste too, and only a judge that it is not trained on tells. "
        "Name a preference model with --watch, such as pickscore=FOLDER."
    )
    return ("none",)
