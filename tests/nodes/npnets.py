"""NPNet files for graphs: real nets, small, with random weights that move the noise."""

from __future__ import annotations

from pathlib import Path

import torch

PROMPT_DIM = {"sdxl": 2048, "hunyuan-dit": 1024}


def save_tiny_npnet(pack, base: Path, family: str = "sdxl", seed: int = 0, arch: str = "npnet") -> str:
    """Write `tiny-<family>-<seed>.safetensors` to models/npnet of a base folder; its name for NPNetLoad. Of another
    architecture than the published one the name begins with that.

    `pack` is the fixture, so that the net is made of the classes that ComfyUI has loaded.
    """
    core = pack.npnet_core
    given = {"family": family, "prompt_dim": PROMPT_DIM[family], "resolution": 16}
    if arch == "unet":
        config = core.config.UNetConfig(**given, widths=(32, 64))
    else:
        swin = {"swin_size": 32, "swin_dim": 24, "swin_depths": (1, 1), "swin_heads": (1, 2), "swin_window": 4}
        config = core.config.NPNetConfig(**given, **swin, **core.config.MENDED)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        npnet = core.architectures.new_net(config)
        with torch.no_grad():  # a new net is the identity
            for parameter in npnet.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    name = f"{'tiny' if arch == 'npnet' else arch}-{family}-{seed}.safetensors"
    core.checkpoint.save_npnet(npnet, base / "models" / "npnet" / name)
    return name
