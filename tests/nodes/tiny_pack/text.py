"""CLIP objects with the real tokenizers, chunking, token weights and clip skip, over a tiny text encoder."""

from __future__ import annotations

import io
from functools import cache

import comfy.sd
import sentencepiece
import torch
from comfy.sd1_clip import SDClipModel
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.hydit import HyditModel, HyditTokenizer

from .models import seed_parameters, with_weights

WIDTH = 32  # inside the encoder; its output has the real width


class TinyTransformer(torch.nn.Module):
    """Tokens [n, T] → hidden states [n, T, hidden_size] and pooled [n, pooled_size].

    Each of three layers mixes a token with the mean of all up to it: causal, like CLIP.
    """

    def __init__(self, config, dtype, device, operations):
        super().__init__()
        made = {"dtype": dtype, "device": device}
        self.num_layers = 3
        self.embedding = operations.Embedding(config["vocab_size"], WIDTH, **made)
        self.mix = torch.nn.ModuleList(operations.Linear(2 * WIDTH, WIDTH, **made) for _ in range(self.num_layers))
        self.widen = operations.Linear(WIDTH, config["hidden_size"], **made)
        self.pool = operations.Linear(WIDTH, config["pooled_size"], **made)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, tokens, attention_mask=None, *, embeds, num_tokens, intermediate_output=None, **kwargs):
        x = embeds  # [n, T, WIDTH]
        position = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        layers = []
        for mix in self.mix:
            x = x + torch.tanh(mix(torch.cat([x, x.cumsum(dim=1) / position], dim=-1)))
            layers.append(self.widen(x))
        end = x[torch.arange(len(x)), torch.tensor(num_tokens) - 1]  # [n, WIDTH]
        intermediate = None if intermediate_output is None else layers[intermediate_output]
        return layers[-1], intermediate, self.pool(end), None


def _encoder(hidden_size: int, pooled_size: int, vocab_size: int, **options) -> SDClipModel:
    config = {"hidden_size": hidden_size, "pooled_size": pooled_size, "vocab_size": vocab_size}
    return SDClipModel(model_class=TinyTransformer, textmodel_json_config=config, dtype=torch.float32, **options)


class TinySDXLText(SDXLClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        penultimate = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False}
        pad_zero = {"start": 49406, "end": 49407, "pad": 0}
        self.clip_l = _encoder(768, 768, 49408, **penultimate)
        self.clip_g = _encoder(1280, 1280, 49408, special_tokens=pad_zero, **penultimate)
        self.dtypes = {torch.float32}


class TinyHunyuanText(HyditModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        masks = {"enable_attention_masks": True, "return_attention_masks": True}
        bert = {"start": 101, "end": 102, "pad": 0}
        self.hydit_clip = _encoder(1024, 1024, 47020, special_tokens=bert, **masks)
        self.mt5xl = _encoder(2048, 2048, 400, special_tokens={"end": 1, "pad": 0}, **masks)
        self.dtypes = {torch.float32}


@cache
def _mt5_vocabulary() -> torch.Tensor:
    """A small sentencepiece model of bytes and letters; the real one comes inside HunyuanDiT's checkpoint."""
    sentences = ["a photo of a red fox in the snow", "an oil painting of two boats at sunset"] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)


@with_weights()
def _clip(tokenizer, text_model, seed: int, tokenizer_data=None) -> comfy.sd.CLIP:
    clip = comfy.sd.CLIP(
        ClipTarget(tokenizer, text_model),
        tokenizer_data=tokenizer_data or {},
        model_options={"dtype": torch.float32},
    )
    seed_parameters(clip.cond_stage_model, seed, gain=2.0)
    return clip


def tiny_sdxl_clip(seed: int = 0) -> comfy.sd.CLIP:
    """CLIP → `[1, 77k, 2048]` (CLIP-L then CLIP-G, penultimate layer) with `pooled_output` [1, 1280]."""
    return _clip(SDXLTokenizer, TinySDXLText, seed)


def tiny_hunyuan_clip(seed: int = 0) -> comfy.sd.CLIP:
    """CLIP → `[1, max(77, L), 1024]` of BERT with `conditioning_mt5xl` [1, ≥ 256, 2048] and their masks."""
    return _clip(HyditTokenizer, TinyHunyuanText, seed, {"mt5xl.spiece_model": _mt5_vocabulary()})
