"""Preference model files for graphs: a real CLIP, small, with random weights that tell images and prompts apart."""

from __future__ import annotations

import json
from pathlib import Path

import torch

SIZES = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "layers": 2, "heads": 4},
}


def save_tiny_scorer(pack, base: Path, kind: str = "pickscore", seed: int = 0, sizes: dict = SIZES) -> str:
    """Write `tiny-<kind>-<seed>.safetensors` to models/preference of a base folder; its name for NPNetScorerLoad.

    `pack` is the fixture. `kind` is one whose file is a transformers CLIP: pickscore or clipscore.
    """
    preference = pack.npnet_core.preference
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = preference.clip.CLIP(preference.architecture.Architecture.from_dict(sizes)).clip
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
            model.logit_scale.fill_(1.0)
    metadata = {preference.files.KIND: kind, preference.files.CONFIG: json.dumps(sizes)}
    name = f"tiny-{kind}-{seed}.safetensors"
    pack.npnet_core.tensorfile.write_tensors(base / "models" / "preference" / name, model.state_dict(), metadata)
    return name
