"""A base model's network with an adapter in it: the f of :mod:`npnet_core.adapter`.

The network keeps its layers, their names and their weights: hooks ask at each call whether there is an adapter, and
which. So one network samples without and predicts with one adapter or another. (peft's injection renames layers, by
which LoRA files and fingerprints find them, and switching it off and on changes which weights get gradients.)
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from npnet_core.adapter import SAME, Adapter, AdapterConfig, Predictor, fingerprint, fingerprint_distance
from npnet_core.architectures import GoldenNet
from npnet_core.errors import InputError, first_of
from npnet_core.golden import golden_noise
from npnet_core.redenoising import Level
from trainer.bases.base import PARTS, Base
from trainer.bases.memory import take_turn
from trainer.bases.prompts import Prompts

log = logging.getLogger(__name__)


def golden(base: Base, npnet: GoldenNet, noise: Tensor, prompts: Prompts, **options) -> Tensor:
    """:func:`npnet_core.golden.golden_noise` of a net of any architecture, whose base model or a relative this is.

    Args:
        noise: [B, C, h, w].
        prompts: B of them.
        options: of that function.
    """
    predictor = predictor_of(base, prompts) if isinstance(npnet, Adapter) else None
    embeds, mask = prompts.prompt_embeds, prompts.prompt_mask
    return golden_noise(npnet, noise, embeds, mask, predictor=predictor, **options)


def predictor_of(base: Base, prompts: Prompts) -> Predictor:
    """f for B prompts; with gradients for the adapter where they are enabled."""
    network = adaptable(base)

    def predict(adapter: Adapter, noise: Tensor) -> Tensor:
        config = adapter.config
        take_turn(base, "network")
        t = torch.tensor(config.t, device=base.device)
        with network.using(adapter):
            change = base.run_network(noise.to(base.device, base.dtype), t, prompts.cond, config.cfg, None)
        return change.to(noise.device, torch.float32)

    return predict


def adapter_config(base: Base, rank: int, level: Level, cfg: float, resolution: int) -> AdapterConfig:
    """Of a new adapter for a base model.

    Args:
        rank: of the LoRA on every linear layer and convolution; 0 for a difference of each layer's weights.
        level: that f is told.
        cfg: guidance scale, for a network that is told one.
        resolution: side of the latents that it is fitted on.
    """
    output = base.network.get_submodule(base.output_layer)
    layers = {name: layer for name, layer in base.network.named_modules() if layer is not output}
    if rank == 0:
        named = ((name, layer.named_parameters()) for name, layer in layers.items() if is_leaf(layer))
        weights = {f"{name}.{each}": weight for name, own in named for each, weight in own}
    else:
        weights = {f"{name}.weight": layer.weight for name, layer in layers.items() if is_layer(layer)}
    return AdapterConfig(
        family=base.family,
        channels=base.channels,
        resolution=resolution,
        prompt_tokens=base.prompt_tokens,
        prompt_dim=base.prompt_dim,
        rank=rank,
        network=next(name for name in PARTS["network"] if getattr(base.pipe, name, None) is base.network),
        weights={name: tuple(weight.shape) for name, weight in weights.items()},
        output=base.output_layer,
        output_shape=tuple(output.weight.shape),
        sigma=level.sigma,
        t=level.t,
        cfg=cfg,
        fingerprint=fingerprint(weights, base.network.get_parameter),
    )


def is_layer(module: nn.Module) -> bool:
    """Whether a LoRA can be added to it."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def is_leaf(module: nn.Module) -> bool:
    """Whether it is a layer of any kind; ComfyUI patches no weights but those of layers."""
    return not module._modules


def check_adapter(base: Base, config: AdapterConfig, name: str) -> None:
    """Refuse an adapter for another network; say so of one for the same network with other weights.

    Args:
        name: of the net, for the sentences.

    Raises:
        InputError: if the base model's network is of another family or has other layers.
    """
    there = {each: tuple(weight.shape) for each, weight in base.network.named_parameters()}
    wanted = config.weights | {f"{config.output}.weight": config.output_shape}
    other = [each for each, shape in wanted.items() if there.get(each) != shape]
    if base.family != config.family or config.output != base.output_layer or other:
        which = f" (other weights are {first_of(other)})" if other else ""
        raise InputError(
            f"The net {name} is an adapter of a {config.family} network that {base.source} does not have{which}: name "
            "the base model that it was fitted with, or one made from it."
        )
    distance = fingerprint_distance(config, base.network.get_parameter)
    if distance > SAME:
        words = "The net %s was fitted with other weights than those of %s, which differ from them by %.0f %%."
        log.warning(words, name, base.source, 100 * distance)


def save_memory(base: Base) -> None:
    """Let training keep the inputs of the network's blocks only, and compute what is in them once more; diffusers has
    not prepared every network for it."""
    if base.network._supports_gradient_checkpointing:
        base.network.enable_gradient_checkpointing(adaptable(base).checkpointed)
    else:
        log.warning("The network of %s keeps all activations: diffusers cannot checkpoint them.", base.source)


def adaptable(base: Base) -> Adaptable:
    """The network's hooks, set when they are first needed."""
    if base.network not in _ADAPTABLE:
        _ADAPTABLE[base.network] = Adaptable(base.network, base.output_layer)
    return _ADAPTABLE[base.network]


class Adaptable:
    """A network whose layers ask for an adapter.

    Attributes:
        adapter: the one that is in it now, or None.
    """

    def __init__(self, network: nn.Module, output: str):
        self.adapter: Adapter | None = None
        for name, module in network.named_modules():
            if name == output:
                module.register_forward_hook(partial(self._own_output, name))
                continue
            if is_layer(module):
                module.register_forward_hook(partial(self._add_lora, name))
            if module._parameters and is_leaf(module):
                own: dict[str, nn.Parameter] = {}
                module.register_forward_pre_hook(partial(self._add_differences, name, own))
                module.register_forward_hook(partial(self._restore, own), always_call=True)

    @contextmanager
    def using(self, adapter: Adapter | None) -> Iterator[None]:
        """With this adapter in it within the block."""
        before, self.adapter = self.adapter, adapter
        try:
            yield
        finally:
            self.adapter = before

    def checkpointed(self, function, *args):
        """torch's activation checkpointing; what is computed once more has the adapter that it had."""
        again = partial(self.using, self.adapter)
        return checkpoint(function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))

    def _add_lora(self, name: str, layer: nn.Module, args: tuple, result: Tensor) -> Tensor | None:
        """W x + B A x, the second term in fp32."""
        if self.adapter is None or self.adapter.config.rank == 0:
            return None
        a, b = (self.adapter.tensor(f"{name}.lora_{half}.weight") for half in "AB")
        x = args[0].to(a.dtype)
        if isinstance(layer, nn.Linear):
            change = F.linear(F.linear(x, a), b)
        else:
            change = F.conv2d(layer._conv_forward(x, a, None), b)
        return result + change.to(result.dtype)

    def _own_output(self, name: str, layer: nn.Module, args: tuple, result: Tensor) -> Tensor | None:
        """The adapter's own layer instead, in fp32 whatever the network computes in."""
        if self.adapter is None:
            return None
        weight, bias = self.adapter.tensor(f"{name}.weight"), self.adapter.tensor(f"{name}.bias")
        with torch.autocast(weight.device.type, enabled=False):
            x = args[0].to(weight.dtype)
            return F.linear(x, weight, bias) if isinstance(layer, nn.Linear) else layer._conv_forward(x, weight, bias)

    def _add_differences(self, name: str, own: dict[str, nn.Parameter], module: nn.Module, args: tuple) -> None:
        """Where all weights are adapted: the layer's weights, and their differences, for this call."""
        if self.adapter is None or self.adapter.config.rank != 0:
            return
        for each, weight in module._parameters.items():
            if weight is not None:
                own[each] = weight
                difference = self.adapter.tensor(f"{name}.{each}.diff")
                module._parameters[each] = (weight + difference).to(weight.dtype)

    def _restore(self, own: dict[str, nn.Parameter], module: nn.Module, args: tuple, result: object) -> None:
        module._parameters.update(own)
        own.clear()


_ADAPTABLE: weakref.WeakKeyDictionary[nn.Module, Adaptable] = weakref.WeakKeyDictionary()
