"""The architectures by the names that files give them.

``npnet(noise, prompt) → golden`` is the call of those that compute by themselves; an adapter is called with a function
instead of the prompt.
"""

from __future__ import annotations

from torch import nn

from .adapter import Adapter, AdapterConfig
from .config import Config, NPNetConfig, UNetConfig
from .model import NPNet
from .unet import UNet

GoldenNet = NPNet | UNet | Adapter

ARCHITECTURES: dict[str, tuple[type[Config], type[GoldenNet]]] = {
    config.architecture: (config, net)
    for config, net in ((NPNetConfig, NPNet), (UNetConfig, UNet), (AdapterConfig, Adapter))
}


def new_net(config: Config, operations=nn) -> GoldenNet:
    """A new net of the config's architecture; weights from torch's global generator."""
    return ARCHITECTURES[config.architecture][1](config, operations)
