"""Sizes of models that several tables share."""

from __future__ import annotations

from npnet_core.preference.architecture import VIT_H

# ViT-H's widths, fewer layers and 17 tokens instead of 257: as on a GPU there is little to compute beside the weights.
REDUCED = VIT_H.to_dict() | {
    "vision_cfg": {**VIT_H.to_dict()["vision_cfg"], "layers": 4, "patch_size": 56},
    "text_cfg": {**VIT_H.to_dict()["text_cfg"], "layers": 3},
}
