"""Preference models at tiny size, written as their published files are, with weights made by the rule of `seeded`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from npnet_core.preference.architecture import Architecture
from npnet_core.preference.layouts import IMAGE_REWARD, MPS_LAYOUT
from tests.seeded import DATA, seeded_tensor
from tests.tiny_pipelines import clip_vocabulary

CLIP_WORDS = DATA / "clip_words"  # the real ids of a few real words
HPS_CONFIG = json.loads(str(np.load(DATA / "hps_tiny.npz")["config"]))
CLIP_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 56, "layers": 2, "width": 64, "head_width": 32, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": len(clip_vocabulary()[0]), "width": 64, "heads": 2, "layers": 2},
}
BERT_VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "blue",
    "circle",
    "square",
    "##s",
    ",",
    "left",
]
BLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 96, "head_width": 24, "patch_size": 16},
    "text_cfg": {"context_length": 35, "vocab_size": 40, "width": 64, "heads": 4, "layers": 2},
}


def seeded_state(shapes: dict[str, tuple[int, ...]], salt: int) -> dict[str, Tensor]:
    return {key: seeded_tensor(key, tuple(shape), salt) for key, shape in shapes.items()}


def hps_state() -> dict[str, Tensor]:
    """The weights that `data/hps_tiny.npz` was computed with by the hpsv2 package."""
    shapes = json.loads((DATA / "hps_tiny_shapes.json").read_text())
    return seeded_state(shapes, int(np.load(DATA / "hps_tiny.npz")["salt"]))


def write_hps(folder: Path, name: str = "HPS_v2_compressed.pt") -> Path:
    """As published: ``{"state_dict": …}`` in open_clip's keys. Its config is `HPS_CONFIG`, its words `CLIP_WORDS`."""
    torch.save({"state_dict": hps_state()}, folder / name)
    return folder / name


def write_clip(folder: Path, salt: int = 1, **changes) -> Path:
    """A transformers folder with weights and vocabulary, its config being `CLIP_CONFIG`; changes are of CLIPConfig."""
    from transformers import CLIPModel

    from npnet_core.preference.clip import clip_config

    config = clip_config(Architecture.from_dict(CLIP_CONFIG))
    for key, value in changes.items():
        setattr(config, key, value)
    clip = CLIPModel(config)
    clip.load_state_dict(seeded_state({key: value.shape for key, value in clip.state_dict().items()}, salt))
    clip.save_pretrained(folder)
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]), encoding="utf-8")
    return folder


def write_aesthetic(folder: Path) -> Path:
    """As published: the head alone, and beside it the folder of the CLIP whose image tower it needs."""
    write_clip(folder / "clip-vit-large-patch14", salt=2)
    widths = [128, 1024, 128, 64, 16, 1]
    shapes = {}
    for i, features_in, features_out in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        shapes |= {f"layers.{i}.weight": (features_out, features_in), f"layers.{i}.bias": (features_out,)}
    torch.save(seeded_state(shapes, 3), folder / "sac+logos+ava1-l14-linearMSE.pth")
    return folder / "sac+logos+ava1-l14-linearMSE.pth"


def write_image_reward(folder: Path) -> Path:
    """As published, with what nothing reads, and with BERT's words beside it."""
    shapes = IMAGE_REWARD.shapes(Architecture.from_dict(BLIP_CONFIG))
    shapes |= {"blip.vision_proj.weight": (16, 96), "blip.text_proj.bias": (16,)}
    position_ids = {"blip.text_encoder.embeddings.position_ids": torch.arange(512)[None]}
    torch.save(seeded_state(shapes, 4) | position_ids, folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(BERT_VOCABULARY))
    return folder / "ImageReward.pt"


def write_mps(folder: Path) -> Path:
    """The state_dict of the published module, buffers included; its words are those of `write_clip`."""
    shapes = MPS_LAYOUT.shapes(Architecture.from_dict(CLIP_CONFIG))
    buffers = {key.replace("weight", "bias"): shape for key, shape in shapes.items() if key.endswith("fn.norm.weight")}
    state = seeded_state(shapes, 5) | {key: torch.zeros(shape) for key, shape in buffers.items()}
    torch.save(state, folder / "MPS_overall.pt")
    return folder / "MPS_overall.pt"


def images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth 8-bit pictures [B, H, W, 3] in 0..1 that differ."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((batch, 3, height // 8 + 2, width // 8 + 2), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (fine * 255).round().movedim(1, -1) / 255
