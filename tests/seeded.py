"""Nets and inputs that are the same on every machine.

The trained NPNets cannot be given away, so parity is measured on weights made by a rule: `data/npnet_<variant>.npz`
holds what the published network computes with `published_state` and `published_inputs`, in eval mode, and
`data/published_shapes.json` the shape of every tensor of the published SDXL file.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from npnet_core.checkpoint import load_npnet
from npnet_core.config import NPNetConfig
from npnet_core.model import NPNet

DATA = Path(__file__).parent / "data"
VARIANTS = {"sdxl": "npnet_sdxl.npz", "hunyuan-dit": "npnet_hunyuan_dit.npz"}
LAYOUTS = ("released .pth", "safetensors, embeeding.*", "safetensors, text_embedding.*")

# Standard deviation and mean of what the rule draws, by the end of the key.
SPREAD = {
    "alpha": (0.1, 0.7),
    "beta": (0.1, -0.35),
    "running_var": (0.0, 1.0),
    "running_mean": (0.02, 0.0),
    "relative_position_bias_table": (0.02, 0.0),
    "bias": (0.02, 0.0),
}

SMALL = {
    "resolution": 16,
    "prompt_tokens": 7,
    "prompt_dim": 12,
    "swin_size": 64,
    "swin_dim": 16,
    "swin_depths": (2, 2),
    "swin_heads": (2, 4),
    "swin_window": 4,
}


def published_shapes(prompt_dim: int = 2048) -> dict[str, tuple[int, ...]]:
    """Shapes by flat published key; only the text term depends on the variant."""
    shapes = json.loads((DATA / "published_shapes.json").read_text())
    shapes["text_embedding.linear.weight"] = [8, 77 * prompt_dim]
    return {key: tuple(shape) for key, shape in shapes.items()}


def seeded_tensor(key: str, shape: tuple[int, ...], salt: int) -> Tensor:
    """Normal numbers from NumPy's frozen legacy generator, seeded with the CRC-32 of "salt:key"."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    draw = np.random.RandomState(zlib.crc32(f"{salt}:{key}".encode())).standard_normal(shape)
    normalisation = (0.1, 1.0)
    matrix = (1 / np.sqrt(np.prod(shape[1:])), 0.0)
    ends = [spread for end, spread in SPREAD.items() if key.endswith(end)]
    spread, mean = ends[0] if ends else normalisation if len(shape) == 1 else matrix
    return torch.from_numpy(np.asarray(mean + spread * draw, dtype=np.float32))


@lru_cache(maxsize=2)
def published_state(variant: str) -> dict[str, Tensor]:
    """The published file's tensors by flat key (`text_embedding.*`), unused ones included. Not to be changed."""
    reference = np.load(DATA / VARIANTS[variant])
    shapes = published_shapes(int(reference["embed_dim"]))
    return {key: seeded_tensor(key, shape, int(reference["salt"])) for key, shape in shapes.items()}


def write_published(state: dict[str, Tensor], folder: Path, layout: str) -> Path:
    """Write flat published tensors (`text_embedding.*`) in one of the three layouts."""
    if layout == "safetensors, text_embedding.*":
        safetensors.torch.save_file(state, folder / "net.safetensors")
        return folder / "net.safetensors"
    state = {key.replace("text_embedding.", "embeeding."): value for key, value in state.items()}
    if layout == "safetensors, embeeding.*":
        safetensors.torch.save_file(state, folder / "misspelt.safetensors")
        return folder / "misspelt.safetensors"
    nested: dict = {}
    for key, value in state.items():
        module, dot, rest = key.partition(".")
        if dot:
            nested.setdefault(module, {})[rest] = value
        else:
            nested[key] = value
    torch.save(nested, folder / "net.pth")
    return folder / "net.pth"


@lru_cache(maxsize=2)
def published_net(variant: str) -> NPNet:
    """The published network with the weights of `published_state`. Not to be changed."""
    with tempfile.TemporaryDirectory() as folder:
        return load_npnet(write_published(published_state(variant), Path(folder), "safetensors, text_embedding.*"))


def published_inputs(variant: str) -> tuple[Tensor, Tensor]:
    """Noise [B, 4, 128, 128] and prompt embedding [B, 77, D]; B is 1 for sdxl and 2 for hunyuan-dit."""
    reference = np.load(DATA / VARIANTS[variant])
    rng, batch = np.random.RandomState(int(reference["salt"])), len(reference["golden"])
    noise = rng.standard_normal((batch, 4, 128, 128)).astype(np.float32)
    prompt = rng.standard_normal((batch, 77, int(reference["embed_dim"]))).astype(np.float32)
    return torch.from_numpy(noise), torch.from_numpy(prompt)


def published_outputs(variant: str) -> dict[str, Tensor]:
    """`golden` and the three terms `svd_branch`, `text_term`, `residual_branch`, each [B, 4, 128, 128]."""
    reference = np.load(DATA / VARIANTS[variant])
    return {key: torch.from_numpy(reference[key]) for key in reference if reference[key].ndim == 4}


class Casting:
    """Layers that keep their weights as they are and cast them to the input when used, uninitialised like ComfyUI's."""

    class Linear(nn.Linear):
        def reset_parameters(self):
            pass

        def forward(self, x):
            return nn.functional.linear(x, self.weight.to(x), None if self.bias is None else self.bias.to(x))

    class LayerNorm(nn.LayerNorm):
        def reset_parameters(self):
            pass

        def forward(self, x):
            return nn.functional.layer_norm(x, self.normalized_shape, self.weight.to(x), self.bias.to(x), self.eps)


def small_net(seed: int = 0, **changes) -> NPNet:
    """A small net in eval mode whose every weight is random: a new one is the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        npnet = NPNet(NPNetConfig(**{**SMALL, **changes}))
        with torch.no_grad():
            for parameter in npnet.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return npnet.eval()


def small_inputs(batch: int = 2, seed: int = 1, resolution: int = 16) -> tuple[Tensor, Tensor]:
    """Noise [batch, 4, resolution, resolution] and prompt embedding [batch, 7, 12]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 4, resolution, resolution, generator=generator)
    return noise, torch.randn(batch, 7, 12, generator=generator)


def difference(result: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    result, expected = result.detach().double(), expected.detach().double()
    return float((result - expected).abs().max() / expected.abs().max())
