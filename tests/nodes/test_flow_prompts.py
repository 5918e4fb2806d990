"""The same text through ComfyUI's own tokenizers and text models and through the trainer's: one form for nets.

Real vocabularies where they are small enough; the text models have the same random weights on both sides.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import comfy.sd1_clip
import comfy.text_encoders.flux
import comfy.text_encoders.sd3_clip
import pytest
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from npnet_core.prompt_form import canonical
from tests import tiny_pipelines
from trainer.bases import encode, load_base

FP32 = {"dtype": torch.float32}
HERE = Path(comfy.sd1_clip.__file__).parent
PROMPTS = {
    "short": "a red fox in the snow",
    "empty": "",
    "more than 77 words of T5, but not of CLIP": "cyberpunk steampunk bokeh vaporwave " * 12,
    "more than 256": "two small red circles left of a blue square, " * 30,
}
CUT = {("sd3", "more than 256")}  # CLIP's part, which ComfyUI goes on with in further chunks
ROWS = 500  # of T5's embedding, which is 4096 wide for SD3: its 32,100 words share them
QWEN = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
QWEN |= {"num_key_value_heads": 1}
T5 = {"d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 3, "vocab_size": ROWS}


def clip_text(kind, width: int, **config):
    """A CLIP with the real vocabulary; its weights for ComfyUI, and the shape that it is told."""
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2, "num_hidden_layers": 3}
    tokens = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
    model = kind(CLIPTextConfig(**shape, vocab_size=49408, projection_dim=width, **tokens, **config)).eval()
    return model, shape | {"projection_dim": width} | config


def clip_weights(model) -> dict[str, torch.Tensor]:
    """As files for ComfyUI have them."""
    return {
        name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}": value
        for name, value in model.state_dict().items()
    }


def load(theirs, state: dict[str, torch.Tensor]) -> None:
    """Put the weights of one side into the other, all of them."""
    missing, unexpected = theirs.load_sd(state)
    assert [name for name in missing if name != "text_projection.weight"] == []
    assert [name for name in unexpected if name != "encoder.embed_tokens.weight"] == []  # `shared` by its other name


def z_image(folder: Path):
    z_image = pytest.importorskip("comfy.text_encoders.z_image", reason="this ComfyUI has no Z-Image")
    base = load_base(tiny_pipelines.tiny_z_image(folder))
    words = Qwen2Tokenizer.from_pretrained(HERE / "text_encoders/qwen25_tokenizer", pad_token="<|endoftext|>")
    words.chat_template = tiny_pipelines.CHAT
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    model = Qwen3Model(Qwen3Config(**QWEN, vocab_size=151936, head_dim=128, **rope)).eval()
    base.pipe.tokenizer, base.pipe.text_encoder = words, model
    theirs = z_image.ZImageTEModel(model_options={"qwen3_4b_model_config": QWEN}, **FP32)
    load(theirs, {f"model.{name}": value for name, value in model.state_dict().items()})
    return base, z_image.ZImageTokenizer(), theirs


def t5(base, number: int, width: int):
    """The base model's T5 with the real vocabulary; the shape of it that ComfyUI is told."""
    words = T5TokenizerFast.from_pretrained(HERE / "text_encoders/t5_tokenizer")
    model = T5EncoderModel(T5Config(**T5, d_model=width, feed_forward_proj="gated-gelu")).eval()
    setattr(base.pipe, f"tokenizer_{number}", words)
    setattr(base.pipe, f"text_encoder_{number}", model)
    model.encoder.embed_tokens.register_forward_pre_hook(folded)
    return model, {"t5xxl_model_config": T5 | {"d_model": width}}


def folded(embedding, args: tuple) -> tuple:
    """Ids of the vocabulary, as rows of the embedding."""
    return (args[0] % ROWS, *args[1:])


def flux(folder: Path):
    base = load_base(tiny_pipelines.tiny_flux(folder))
    base.pipe.tokenizer = CLIPTokenizer.from_pretrained(HERE / "sd1_tokenizer", model_max_length=77)
    base.pipe.text_encoder, clip = clip_text(CLIPTextModel, 24)
    t5_model, shapes = t5(base, 2, 40)
    theirs = comfy.text_encoders.flux.flux_clip()(model_options=shapes | {"clip_l_model_config": clip}, **FP32)
    load(theirs.clip_l, clip_weights(base.pipe.text_encoder))
    load(theirs.t5xxl, t5_model.state_dict())
    theirs.t5xxl.transformer.shared.register_forward_pre_hook(folded)
    return base, comfy.text_encoders.flux.FluxTokenizer(), theirs


def sd3(folder: Path):
    """T5 has to be 4096 wide: so wide ComfyUI makes CLIP's tokens."""
    base = load_base(tiny_pipelines.tiny_sd3(folder))
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        words = CLIPTokenizer.from_pretrained(HERE / "sd1_tokenizer", pad_token=pad, model_max_length=77)
        setattr(base.pipe, name, words)
    base.pipe.text_encoder, clip_l = clip_text(CLIPTextModelWithProjection, 24)
    base.pipe.text_encoder_2, clip_g = clip_text(CLIPTextModelWithProjection, 40, hidden_act="gelu")
    t5_model, shapes = t5(base, 3, 4096)
    shapes |= {"clip_l_model_config": clip_l, "clip_g_model_config": clip_g}
    theirs = comfy.text_encoders.sd3_clip.sd3_clip()(model_options=shapes, **FP32)
    load(theirs.clip_l, clip_weights(base.pipe.text_encoder))
    load(theirs.clip_g, clip_weights(base.pipe.text_encoder_2))
    load(theirs.t5xxl, t5_model.state_dict())
    theirs.t5xxl.transformer.shared.register_forward_pre_hook(folded)
    return base, comfy.text_encoders.sd3_clip.SD3Tokenizer(), theirs


@pytest.fixture(scope="module", params=[z_image, flux, sd3], ids=lambda build: build.__name__)
def both(request, tmp_path_factory):
    torch.manual_seed(0)
    base, tokenizer, model = request.param(tmp_path_factory.mktemp("base"))
    return SimpleNamespace(base=base, tokenizer=tokenizer, model=model.eval())


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_nets_see_the_same(both, prompt):
    base, text = both.base, PROMPTS[prompt]
    embeds, _, *extra = both.model.encode_token_weights(both.tokenizer.tokenize_with_weights(text))
    theirs, their_mask = canonical(base.family, embeds, extra[0].get("attention_mask") if extra else None)
    told = encode(base, [PROMPTS["short"], text])[1:]  # in a batch of prompts of other lengths
    ours, our_mask = canonical(base.family, told.prompt_embeds, told.prompt_mask)
    assert our_mask.all()
    assert their_mask is None or their_mask.all()
    if (base.family, prompt) in CUT:
        t5 = ours.shape[1] - 77
        assert theirs.shape[1] > ours.shape[1]
        ours, theirs = ours[:, -t5:], theirs[:, -t5:]
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_t5_s_states_depend_on_the_padding(tmp_path):
    """Why the trainer has to pad as ComfyUI does."""
    torch.manual_seed(0)
    base, *_ = flux(tmp_path)
    words = base.pipe.tokenizer_2("a red fox").input_ids
    short, long = (
        base.pipe.encode_prompt("a red fox", device="cpu", max_sequence_length=tokens)[0][:, : len(words)]
        for tokens in (256, 512)
    )
    assert (short - long).abs().max() > 0.01
