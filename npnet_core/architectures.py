"""The architectures behind one call, ``npnet(noise, prompt) → golden``, by the names that files give them."""

from __future__ import annotations

from torch import nn

from .config import Config, NPNetConfig, UNetConfig
from .model import NPNet
from .unet import UNet

GoldenNet = NPNet | UNet

ARCHITECTURES: dict[str, tuple[type[Config], type[GoldenNet]]] = {
    config.architecture: (config, net) for config, net in ((NPNetConfig, NPNet), (UNetConfig, UNet))
}


def new_net(config: Config, operations=nn) -> GoldenNet:
    """A new net of the config's architecture; weights from torch's global generator."""
    return ARCHITECTURES[config.architecture][1](config, operations)
