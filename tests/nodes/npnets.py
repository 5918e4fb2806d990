"""NPNet files for graphs: real nets, small, with random weights that move the noise."""

from __future__ import annotations

from pathlib import Path

import torch

SHAPES = {  # width of a prompt's token, channels of a latent
    "sdxl": (2048, 4),
    "hunyuan-dit": (1024, 4),
    "sd3": (4096, 16),
    "flux": (4096, 16),
    "z-image": (2560, 16),
    "qwen-image": (3584, 16),
    "krea-2": (30720, 16),
    "anima": (1024, 16),
}


def save_tiny_npnet(pack, base: Path, family: str = "sdxl", seed: int = 0, arch: str = "npnet") -> str:
    """Write `tiny-<family>-<seed>.safetensors` to models/npnet of a base folder; its name for NPNetLoad. Of another
    architecture than the published one the name begins with that.

    `pack` is the fixture, so that the net is made of the classes that ComfyUI has loaded.
    """
    core, (width, channels) = pack.npnet_core, SHAPES[family]
    given = {"family": family, "prompt_dim": width, "resolution": 16, "channels": channels}
    if arch == "unet":
        narrow = core.config.narrow_prompt(width)
        config = core.config.UNetConfig(**given, widths=(32, 64), prompt_width=narrow)
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


def save_tiny_adapter(pack, base: Path, family: str, model) -> str:
    """Write an adapter for a tiny MODEL to models/npnet of a base folder; its name for NPNetLoad."""
    core, adapter = pack.npnet_core.adapter, pack.nodes.adapter
    find, weights = getattr(adapter.comfy.utils, adapter.MAPS[family]), model.model.state_dict()
    places = {name: adapter._place(value) for name, value in find(model.model.model_config.unet_config).items()}
    found = {name: place.read(weights[place.key]) for name, place in places.items() if place.key in weights}
    output = {"sdxl": "conv_out", "flux": "proj_out", "z-image": "all_final_layer.2-1.linear"}[family]
    shapes = {name: tuple(weight.shape) for name, weight in found.items()}
    layers = {name: shape for name, shape in shapes.items() if len(shape) in (2, 4) and not name.startswith(output)}
    config = core.AdapterConfig(
        family=family,
        prompt_dim=SHAPES[family][0],
        channels=SHAPES[family][1],
        rank=2,
        network="unet" if family == "sdxl" else "transformer",
        weights=layers,
        output=output,
        output_shape=shapes[f"{output}.weight"],
        fingerprint=core.fingerprint(layers, found.__getitem__),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        npnet = core.Adapter(config)
        with torch.no_grad():  # a new one is the identity
            for parameter in npnet.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    name = f"adapter-{family}.safetensors"
    pack.npnet_core.checkpoint.save_npnet(npnet, base / "models" / "npnet" / name)
    return name
