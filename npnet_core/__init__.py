"""NPNet golden noise: the network, its files, and everything that is done with noise.

    from npnet_core import golden_noise, load_npnet

    npnet = load_npnet("models/npnet/sdxl.safetensors")
    golden = golden_noise(npnet, noise, prompt_embeds)  # [B, 4, H, W] from noise [B, 4, H, W] and [B, 77, 2048]

These names are imported when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import load_npnet, save_npnet
    from .config import NPNetConfig, UNetConfig
    from .errors import InputError
    from .golden import golden_noise
    from .npd import NPDReader, NPDWriter
    from .preference import load_scorer
    from .redenoising import redenoise
    from .selection import keep_pair

__all__ = [
    "InputError",
    "NPDReader",
    "NPDWriter",
    "NPNetConfig",
    "UNetConfig",
    "golden_noise",
    "keep_pair",
    "load_npnet",
    "load_scorer",
    "redenoise",
    "save_npnet",
]

_MODULES = {
    "InputError": "errors",
    "NPDReader": "npd",
    "NPDWriter": "npd",
    "NPNetConfig": "config",
    "UNetConfig": "config",
    "golden_noise": "golden",
    "keep_pair": "selection",
    "load_npnet": "checkpoint",
    "load_scorer": "preference",
    "redenoise": "redenoising",
    "save_npnet": "checkpoint",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
