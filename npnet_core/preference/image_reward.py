"""ImageReward: BLIP reads the prompt while it looks at the image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .aesthetic import LinearHead
from .architecture import Architecture
from .pixels import crop_to_square
from .scorer import PixelScorer
from .tokens import Tokenizer

# Of the published rewards on its authors' data, so that scores are about standard normal there.
MEAN, STD = 0.16717362830052426, 1.0333394966054072


class ImageReward(nn.Module):
    """BLIP's image tower, its text tower with cross attention to it, and a head on the first token."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        self.architecture = architecture
        vision, text = architecture.vision_cfg, architecture.text_cfg
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                hidden_size=vision.width,
                intermediate_size=4 * vision.width,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.width // vision.head_width,
                hidden_act="gelu",
                layer_norm_eps=1e-6,
            )
        )
        self.text = BlipTextModel(
            BlipTextConfig(
                vocab_size=text.vocab_size,
                hidden_size=text.width,
                encoder_hidden_size=vision.width,
                intermediate_size=4 * text.width,
                num_hidden_layers=text.layers,
                num_attention_heads=text.heads,
                max_position_embeddings=512,
                hidden_act="gelu",
                layer_norm_eps=1e-12,
                is_decoder=True,  # gives it cross attention
            ),
            add_pooling_layer=False,
        )
        self.head = LinearHead(text.width)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] and ids [B, T], zeros behind their end → rewards [B]."""
        weight = self.vision.post_layernorm.weight
        image = self.vision(pixels.to(weight)).last_hidden_state
        tokens = tokens.to(weight.device)
        text = self.text(
            tokens,
            attention_mask=(tokens != 0).long(),
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=weight.device),
            is_decoder=False,  # every word sees every other
        ).last_hidden_state
        return (self.head(text[:, 0]) - MEAN) / STD


class ImageRewardScorer(PixelScorer):
    model: ImageReward
    pixels = staticmethod(partial(crop_to_square, as_torchvision=True))

    def __init__(self, kind: str, model: ImageReward, tokenize: Tokenizer):
        super().__init__(kind, model)
        self.tokenize = tokenize

    def look(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.model(pixels, self.tokenize(prompts))
