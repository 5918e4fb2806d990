"""A net made of its base model: golden = x + f(x, c), f the base's own network with an adapter in it.

The adapter changes the weights of the network (LoRA, or a difference of each) and has an output layer of its own, which
starts at zero, so that a new net is the identity. The network is not in the file, and this package knows none: who
holds a base model hands over f as a function, a :data:`Predictor`.

    UNET_OR_TRANSFORMER.LAYER.lora_A.weight    [rank, in] or [rank, in, k, k]; names as peft and diffusers have them
    UNET_OR_TRANSFORMER.LAYER.lora_B.weight    [out, rank] or [out, rank, 1, 1]
    UNET_OR_TRANSFORMER.WEIGHT.diff            like the weight, where all weights are trained
    UNET_OR_TRANSFORMER.OUTPUT.weight, .bias   of the output layer, instead of the base's own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from .config import Config
from .errors import InputError

LARGEST = 2**18  # of any side of a weight …
NUMEL = 2**34  # … and of all together
WEIGHTS = 20_000  # of a network
READ, NUMBERS = 16, 8  # weights of a fingerprint, numbers of each
SAME = 0.05  # relative distance of two fingerprints up to which a model is the same: fp8 rounds by 0.03

Shape = tuple[int, ...]


@dataclass(frozen=True)
class AdapterConfig(Config):
    """What an adapter is for, and what its network is told.

    Args:
        family, channels, resolution, prompt_tokens, prompt_dim: as in :class:`Config`.
        rank: of the LoRA on each layer; 0 for a difference of every weight.
        network: what diffusers' pipeline calls the network, ``unet`` or ``transformer``.
        weights: the weights that are adapted, by their names in diffusers' network, with their shapes.
        output: name of the network's last layer.
        output_shape: of its weight.
        sigma: of the noise level that f is told, in the network's own form: √(1 − ᾱ), or flow's 0..1.
        t: what the network is told of that level, as diffusers' scheduler counts it.
        cfg: guidance scale, for a network that is told one.
        fingerprint: the first numbers of some weights of the base model, by name, see :func:`fingerprint`.

    Raises:
        InputError: for values that make no adapter.
    """

    architecture: ClassVar[str] = "adapter"
    any_size: ClassVar[bool] = True

    rank: int = 64
    network: str = "unet"
    weights: dict[str, Shape] = field(default_factory=dict)
    output: str = "conv_out"
    output_shape: Shape = (4, 320, 3, 3)
    sigma: float = 1.0
    t: float = 999.0
    cfg: float = 1.0
    fingerprint: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check_counts()
        try:  # JSON has lists only
            shapes = {name: tuple(shape) for name, shape in self.weights.items()}
            read = {name: tuple(map(float, values)) for name, values in self.fingerprint.items()}
            object.__setattr__(self, "output_shape", tuple(self.output_shape))
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"The adapter's weights, output_shape or fingerprint make no table: {error}.") from error
        object.__setattr__(self, "weights", shapes)
        object.__setattr__(self, "fingerprint", read)
        if not (isinstance(self.rank, int) and 0 <= self.rank <= LARGEST):
            raise InputError(f"rank={self.rank!r} makes no adapter: give a whole number, 0 for all weights.")
        if len(shapes) > WEIGHTS or not all(map(_sound, shapes.values())) or not _sound(self.output_shape):
            raise InputError("The shapes of the adapted weights are none of a network: get the file again.")
        if self.rank and not all(len(shape) in (2, 4) for shape in (*shapes.values(), self.output_shape)):
            raise InputError("A LoRA is for matrices and convolutions and other weights are named: use rank 0 for all.")
        names = (self.network, self.output, *shapes)
        if not all(isinstance(name, str) and all(name.split(".")) for name in names):
            raise InputError("The adapter names a weight that no network has: get the file again.")
        if not all(
            isinstance(value, (int, float)) and math.isfinite(value) for value in (self.sigma, self.t, self.cfg)
        ):
            raise InputError("sigma, t and cfg of an adapter are numbers: get the file again.")

    def shapes(self) -> dict[str, Shape]:
        """Name in the file → shape of each of its tensors."""
        found = {}
        for name, shape in self.weights.items():
            if self.rank == 0:
                found[f"{name}.diff"] = shape
            else:
                layer, ones = name.removesuffix(".weight"), (1,) * (len(shape) - 2)
                found[f"{layer}.lora_A.weight"] = (self.rank, *shape[1:])
                found[f"{layer}.lora_B.weight"] = (shape[0], self.rank, *ones)
        found |= {f"{self.output}.weight": self.output_shape, f"{self.output}.bias": self.output_shape[:1]}
        return {f"{self.network}.{name}": shape for name, shape in found.items()}


def _sound(shape: Shape) -> bool:
    return all(isinstance(side, int) and 1 <= side <= LARGEST for side in shape) and math.prod(shape) <= NUMEL


class Adapter(nn.Module):
    """The tensors of an adapter. Matrices A are drawn from torch's global generator, so seed it before; all others are
    zero, so that a new net is the identity.
    """

    def __init__(self, config: AdapterConfig, operations: object = nn):
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}  # of the file it was loaded from
        for name, shape in config.shapes().items():
            weight = torch.zeros(shape)
            if name.endswith("lora_A.weight"):
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # peft's, and that of torch's own layers
            *path, last = name.split(".")
            module: nn.Module = self
            try:
                for part in path:
                    if part not in module._modules:
                        module.add_module(part, nn.Module())
                    module = module._modules[part]
                module.register_parameter(last, nn.Parameter(weight))
            except KeyError as error:  # of a name that a module cannot have, or two in one place
                raise InputError(f"The adapter's {name} is the name of no weight: get the file again.") from error

    def tensor(self, name: str) -> Tensor:
        """One of them, by its name behind ``unet.`` or ``transformer.``."""
        return self.get_parameter(f"{self.config.network}.{name}")

    def forward(self, noise: Tensor, predictor: Predictor) -> Tensor:
        """noise [B, C, H, W], unit variance, fp32 → golden noise [B, C, H, W] = noise + f(noise).

        Raises:
            InputError: for noise of other channels, or without a predictor.
        """
        check_predictor(predictor)
        if noise.ndim != 4 or noise.shape[1] != self.config.channels or 0 in noise.shape:
            raise InputError(
                f"Noise of shape {list(noise.shape)} came to a net for [B, {self.config.channels}, H, W]: use this net "
                "with the base model it was trained for."
            )
        return noise + predictor(self, noise)


Predictor = Callable[[Adapter, Tensor], Tensor]
"""f: (adapter, noise [B, C, H, W], unit variance, fp32) → the prediction of the base model's network with this adapter
in it, like noise, at the adapter's level, for the B prompts that it has been told."""


def check_predictor(predictor: Predictor | None) -> None:
    """Raise InputError if there is none."""
    if predictor is None:
        raise InputError(
            "This net is an adapter, which works inside its base model's own network, and came without it: give the "
            "base model too (in ComfyUI connect the model, in Python pass a predictor)."
        )


def fingerprint(weights: Iterable[str], read: Callable[[str], Tensor]) -> dict[str, tuple[float, ...]]:
    """The first :data:`NUMBERS` numbers of :data:`READ` of a base model's weights, evenly spread over their names.

    Read by name and in fp32, so that it depends neither on where a file keeps the weights nor, but for rounding, on
    their type.

    Args:
        weights: all names.
        read: name → the weight, of any shape and type.
    """
    names = sorted(weights)
    chosen = names[:: math.ceil(len(names) / READ)] if names else []
    return {name: tuple(read(name).flatten()[:NUMBERS].float().tolist()) for name in chosen}


def fingerprint_distance(config: AdapterConfig, read: Callable[[str], Tensor]) -> float:
    """How far a base model's weights are from those that the adapter was fitted with, ‖a − b‖ / ‖a‖ of what its
    fingerprint holds; up to :data:`SAME` it is the same model, perhaps quantised."""
    there = torch.tensor([number for numbers in config.fingerprint.values() for number in numbers])
    here = torch.cat([read(name).flatten()[:NUMBERS].float().cpu() for name in config.fingerprint] or [there])
    return (torch.linalg.vector_norm(here - there) / torch.linalg.vector_norm(there).clamp(min=1e-12)).item()
