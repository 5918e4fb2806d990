"""CLIP, and the metrics that are a function of the cosine between an image and a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .pixels import at_least_fp32
from .scorer import PixelScorer
from .tokens import Tokenizer

REMEMBERED = 256  # prompts


def clip_config(architecture: Architecture):
    """The same sizes as a ``transformers.CLIPConfig``."""
    from transformers import CLIPConfig

    vision, text = architecture.vision_cfg, architecture.text_cfg
    activation = "quick_gelu" if architecture.quick_gelu else "gelu"
    return CLIPConfig(
        projection_dim=architecture.embed_dim,
        vision_config={
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "hidden_size": vision.width,
            "intermediate_size": 4 * vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.width // vision.head_width,
            "projection_dim": architecture.embed_dim,
            "hidden_act": activation,
        },
        text_config={
            "max_position_embeddings": text.context_length,
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "projection_dim": architecture.embed_dim,
            "hidden_act": activation,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
            "pad_token_id": 0,
        },
    )


class CLIP(nn.Module):
    """Both towers. Features have unit length and are float32, or float64 if the weights are."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        from transformers import CLIPModel

        self.architecture = architecture
        self.clip = CLIPModel(clip_config(architecture))

    def image_features(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] → [B, D]."""
        pooled = self.clip.vision_model(pixels.to(self.clip.visual_projection.weight)).pooler_output
        return F.normalize(at_least_fp32(self.clip.visual_projection(pooled)), dim=-1)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Ids [B, T] → [B, D]; what stands behind the ends is left out, because a causal tower does not see it."""
        end = self.architecture.text_cfg.vocab_size - 1
        tokens = tokens[:, : (tokens == end).int().argmax(-1).max() + 1]
        pooled = self.clip.text_model(tokens.to(self.clip.text_projection.weight.device)).pooler_output
        return F.normalize(at_least_fp32(self.clip.text_projection(pooled)), dim=-1)


class TextCache:
    """Encodes each distinct prompt once and remembers the newest, on the CPU."""

    def __init__(self, encode: Callable[[list[str]], Tensor]):
        self.encode, self.known = encode, {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """What ``encode`` makes of B prompts, stacked [B, …], on the CPU."""
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]:
            self.known |= zip(new, self.encode(new).cpu(), strict=True)
        encoded = torch.stack([self.known[prompt] for prompt in prompts])
        for prompt in list(self.known)[:-REMEMBERED]:
            del self.known[prompt]
        return encoded


class CosineScorer(PixelScorer):
    """HPSv2, PickScore and CLIPScore: ``formula(cosine [B], logit_scale [])`` of a CLIP's features.

    The logit scale is the trained logarithm of a factor.
    """

    model: CLIP

    def __init__(
        self,
        kind: str,
        model: CLIP,
        tokenize: Tokenizer,
        *,
        pixels: Callable[..., Tensor],
        formula: Callable[[Tensor, Tensor], Tensor],
    ):
        super().__init__(kind, model)
        self.pixels, self.formula = pixels, formula
        self.text = TextCache(lambda prompts: model.text_features(tokenize(prompts)))

    def look(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        image = self.model.image_features(pixels)
        cosine = (image * self.text(prompts).to(image.device)).sum(-1)
        return self.formula(cosine, self.model.clip.logit_scale)


def cosine(cosine: Tensor, logit_scale: Tensor) -> Tensor:
    """HPSv2: no scale. The papers print it times 100."""
    return cosine


def scaled_cosine(cosine: Tensor, logit_scale: Tensor) -> Tensor:
    """PickScore: the logit itself, about 100 times the cosine."""
    return logit_scale.exp() * cosine


def clip_score(cosine: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIPScore (Hessel et al., eq. 1): 2.5 max(cos, 0), which fits the percentages that the paper prints."""
    return 2.5 * cosine.clamp(min=0)
