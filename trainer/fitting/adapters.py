"""The net that is made of the base model, and the pairs as it sees them: with the base model in memory."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from npnet_core.adapter import Adapter, AdapterConfig
from npnet_core.architectures import GoldenNet
from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from npnet_core.npd import Manifest, NPDReader
from npnet_core.redenoising import Level
from trainer import bases
from trainer.bases import Base, Prompts, Schedule
from trainer.collecting.manifest import comfyui_sigma
from trainer.data.network_inputs import NetworkInputs, encode_for_network
from trainer.distributed import Process
from trainer.fitting.build_net import common_resolution, new_npnet
from trainer.fitting.pair_batches import Batches
from trainer.fitting.settings import NOT_COMPILED, NetSettings, NoisePairs, Settings

log = logging.getLogger(__name__)

RANK = 64
OPTIMIZER = 16  # bytes per trained number in fp32: itself, its gradient, AdamW's two averages


@dataclass(frozen=True)
class AdapterBatch:
    """Pairs of one size, see :class:`trainer.fitting.pair_batches.Batch`."""

    indices: list[int]
    noise: Tensor
    target: Tensor
    predictor: bases.Predictor  # for these prompts

    @property
    def inputs(self) -> tuple:
        """What the net is called with."""
        return self.noise, self.predictor


@dataclass(frozen=True)
class AdapterBatches(Batches):
    """Pairs by index → an :class:`AdapterBatch`; ``embeddings`` gives what the base model's network is told."""

    embeddings: Callable[[Sequence[str]], Prompts]
    base: Base

    def __call__(self, indices: Sequence[int]) -> AdapterBatch:
        noise, target = (torch.stack(side).to(self.device) for side in zip(*map(self.pair, indices), strict=True))
        predictor = self.predictor([self.reader.records[i].key.prompt for i in indices])
        return AdapterBatch(list(indices), noise, target, predictor)

    def golden(self, npnet: GoldenNet, noise: Tensor, texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return npnet(noise.to(self.device), self.predictor(texts)).cpu()

    def predictor(self, prompts: Sequence[str]) -> bases.Predictor:
        cond = {name: value.to(self.device) for name, value in self.embeddings(prompts).cond.items()}
        return bases.predictor_of(self.base, Prompts(cond, {}))


def is_adapter(settings: NetSettings) -> bool:
    """Whether the net that a fit starts from is one."""
    if settings.init is not None:
        return isinstance(load_npnet(settings.init), Adapter)
    return settings.architecture == AdapterConfig.architecture


def prepare_adapter(
    settings: Settings, process: Process, reader: NPDReader, indices: Sequence[int]
) -> tuple[Adapter, AdapterBatches]:
    """The net, and what prepares the pairs for it. Text encoders, then the network, are on the device by turns.

    Raises:
        InputError: for a base model that does not fit the dataset, or settings that an adapter does not have.
    """
    net, pairs = settings.net, settings.objective
    if settings.training.compile:
        raise InputError(NOT_COMPILED)
    base = load_network(pairs, net, process, reader.manifest)
    bases.move(base, "text", process.device)
    if pairs.cache:
        prompts = [reader.records[i].key.prompt for i in indices]
        encode_for_network(pairs.dataset, base, prompts, share=(process.rank, process.count))
        bases.move(base, "text", "cpu")
        process.wait()
        embeddings = NetworkInputs(pairs.dataset, base.source).batch
    else:
        embeddings = partial(bases.encode, base, uncond={})
    level = first_level(base, reader.manifest)
    resolution = common_resolution(reader.records[i].key.shape[1:] for i in indices)
    npnet = starting_adapter(settings, base, level, reader.manifest.cfg, resolution)
    log.info("%s", memory(base, npnet))
    bases.move(base, "network", process.device)
    if settings.runtime.checkpointing:
        bases.save_memory(base)
    npnet.to(process.device)
    return npnet, AdapterBatches(reader, embeddings, npnet.config, process.device, base)


def load_network(pairs: NoisePairs, net: NetSettings, process: Process, manifest: Manifest) -> Base:
    """The dataset's base model, on the CPU, without gradients of its own; it predicts on the process's device."""
    name = pairs.base or manifest.recorded.get("base_model")
    if not name:
        raise InputError(
            f"The dataset {pairs.dataset} does not say which base model it was made with: name it with --base."
        )
    precision = net.base_precision or ("fp32" if process.device.type == "cpu" else "bf16")
    base = bases.load_base(name, config=pairs.base_config, device="cpu", precision=precision)
    if base.family != manifest.base_family:
        raise InputError(
            f"{name} is of family {base.family} and the dataset was made with {manifest.base_family}: name a base "
            "model of that family with --base."
        )
    for part in bases.PARTS:
        for module in base.modules(part):
            module.requires_grad_(False)
    return dataclasses.replace(base, device=process.device)


def starting_adapter(settings: Settings, base: Base, level: Level, cfg: float, resolution: int) -> Adapter:
    """New, or from ``init``, and told this level and guidance scale.

    Raises:
        InputError: for a file of another base model.
    """
    net = settings.net
    if net.init is None:
        rank = RANK if net.rank is None else net.rank
        return new_npnet(bases.adapter_config(base, rank, level, cfg, resolution), settings.training.seed)
    npnet = load_npnet(net.init)
    bases.check_adapter(base, npnet.config, str(net.init))
    npnet.config = dataclasses.replace(npnet.config, sigma=level.sigma, t=level.t, cfg=cfg)
    return npnet.requires_grad_(True)


def first_level(base: Base, manifest: Manifest) -> Level:
    """The level of the dataset's noises, as the base model's network is told it.

    Raises:
        InputError: if the base model's schedule does not begin there.
    """
    recorded = manifest.recorded
    named = {name: recorded[name] for name in ("sampler", "steps", "spacing") if name in recorded}
    level = bases.levels(base, Schedule(**named))[0]
    sigma = comfyui_sigma(level, base.prediction)
    if not math.isclose(sigma, manifest.sigmas[0], rel_tol=1e-3):
        raise InputError(
            f"The dataset's noises are of sigma {manifest.sigmas[0]:g} and the schedule of {base.source} begins at "
            f"{sigma:g}: name the base model that the dataset was collected with (--base)."
        )
    return level


def memory(base: Base, npnet: Adapter) -> str:
    """A sentence about the memory that fitting needs, as far as it follows from the weights."""
    weights = sum(weight.numel() * weight.element_size() for weight in base.network.parameters())
    trained = sum(parameter.numel() for parameter in npnet.parameters())
    return (
        f"Fitting needs {weights / 1e9:.2f} GB for the network of {base.source} ({str(base.dtype).split('.')[-1]}), "
        f"{OPTIMIZER * trained / 1e9:.2f} GB for {trained:,} trained numbers with gradients and optimizer, and what a "
        "batch computes on top: if that does not fit, lower --batch and raise --accumulate."
    )
