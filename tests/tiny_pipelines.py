"""Real diffusers pipelines at tiny size, built offline and saved as ordinary folders.

Every function writes one pipeline into a folder and returns the folder. Latents are 8 times smaller than images, as in
the published models; the networks are made for 128 px. The weights are random but a function of the seed.
"""

from __future__ import annotations

import string
from pathlib import Path

import torch

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
STEPS = dict(timestep_spacing="leading", steps_offset=1)
WORDS = ["red", "blue", "green", "circle", "square", "left", "right", "of", "and", "one", "a", "the"]


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's byte-level vocabulary and merges, for a handful of words."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    tokens, merges = letters + [letter + "</w>" for letter in letters], []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if (pair := (parts[0], parts[1])) not in merges:
                merges.append(pair)
                tokens.append("".join(pair))
            parts = ["".join(pair), *parts[2:]]
    return {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}, merges


def clip_tokenizer(pad_token: str = "<|endoftext|>"):
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=77)


def clip_text_model(cls, tokenizer, width: int, **config):
    from transformers import CLIPTextConfig

    return cls(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config,
        )
    )


def vae(channels: int = 4, **config):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=128,
        **{"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "force_upcast": False} | config,
    )


FLUX_VAE = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "force_upcast": True}


def unet(width: int, channels: int = 4, **config):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        **{"block_out_channels": (16, 32), "norm_num_groups": 8, "attention_head_dim": 2} | config,
    )


LISTENING = (
    *("attn2.to_k.weight", "attn2.to_v.weight", "attn2.to_out.0.weight"),  # UNets', Hunyuan-DiT's
    *("cap_embedder.1.weight", "context_embedder.weight"),  # Z-Image's; SD3's and FLUX.1's
)


def lively(network: torch.nn.Module) -> torch.nn.Module:
    """Make a random network listen to its prompt: scale up every weight matrix that reads it."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(LISTENING):
                weight.mul_(4)
    return network


def ddim_scheduler(**config):
    from diffusers import DDIMScheduler

    return DDIMScheduler(**{**BETAS, **STEPS, "clip_sample": False, "set_alpha_to_one": False, **config})


def tiny_sd(
    folder: Path,
    width: int = 32,
    seed: int = 0,
    prediction: str = "epsilon",
    channels: int = 4,
    tokenizer=None,
    layers: int = 2,
    hidden_act: str = "quick_gelu",
    autoencoder=None,
    **unet_config,
) -> Path:
    """An SD of text width ``width``: 768 makes an SD 1.x, 1024 with ``v_prediction`` an SD 2.1."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = tokenizer or clip_tokenizer("!" if width == 1024 else "<|endoftext|>")
    StableDiffusionPipeline(
        vae=autoencoder or vae(),
        text_encoder=clip_text_model(CLIPTextModel, tokenizer, width, num_hidden_layers=layers, hidden_act=hidden_act),
        tokenizer=tokenizer,
        unet=lively(unet(width, channels, **unet_config)),
        scheduler=ddim_scheduler(prediction_type=prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def tiny_sdxl(
    folder: Path,
    widths: tuple[int, int] = (24, 40),
    seed: int = 0,
    tokenizers=None,
    layers: int = 2,
    autoencoder=None,
    **unet_config,
) -> Path:
    """An SDXL whose two text encoders are ``widths`` wide."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = tokenizers or (clip_tokenizer(), clip_tokenizer("!"))
    narrow = {"num_hidden_layers": layers}
    wide = {"num_hidden_layers": layers, "projection_dim": widths[1], "hidden_act": "gelu"}
    sdxl = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + widths[1],
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
    }
    StableDiffusionXLPipeline(
        vae=autoencoder or vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=clip_text_model(CLIPTextModel, tokenizer, widths[0], **narrow),
        text_encoder_2=clip_text_model(CLIPTextModelWithProjection, tokenizer_2, widths[1], **wide),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=lively(unet(sum(widths), **sdxl | unet_config)),
        scheduler=EulerDiscreteScheduler(**BETAS, **STEPS),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def t5_tokenizer(tokens: int = 256):
    """T5's vocabulary of single letters."""
    from transformers import T5Tokenizer

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words += [(letter, -3.0) for letter in string.ascii_lowercase]
    return T5Tokenizer(vocab=words, extra_ids=0, model_max_length=tokens)


def t5_encoder(width: int):
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    )


def tiny_hunyuan_dit(folder: Path, seed: int = 0, num_layers: int = 2, pooled_projection_dim: int = 16) -> Path:
    """A Hunyuan-DiT whose BERT is 32 wide and whose T5 is 40 wide."""
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = list(string.ascii_lowercase)
    bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters), *WORDS[:-2]]
    torch.manual_seed(seed)
    HunyuanDiTPipeline(
        vae=vae(scaling_factor=0.13025, force_upcast=True),
        tokenizer=BertTokenizer(vocab={token: i for i, token in enumerate(bert)}, model_max_length=77),
        text_encoder=BertModel(
            BertConfig(
                vocab_size=len(bert),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=128,
            )
        ),
        tokenizer_2=t5_tokenizer(),
        text_encoder_2=t5_encoder(40),
        transformer=lively(
            HunyuanDiT2DModel(
                sample_size=16,
                patch_size=2,
                num_layers=num_layers,
                num_attention_heads=3,
                attention_head_dim=8,
                hidden_size=24,
                in_channels=4,
                cross_attention_dim=32,
                cross_attention_dim_t5=40,
                pooled_projection_dim=pooled_projection_dim,
                learn_sigma=True,
                activation_fn="gelu-approximate",
            )
        ),
        scheduler=DDPMScheduler(**{**BETAS, "beta_end": 0.03}, steps_offset=1, prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


CHAT = (  # Qwen3's turns, without tools and thoughts
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def flow_scheduler(**config):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**config)


def qwen_tokenizer():
    """Qwen's byte-level vocabulary of single bytes, and its turns."""
    from transformers import Qwen2Tokenizer

    bytes_ = sorted({word.removesuffix("</w>") for word in clip_vocabulary()[0] if len(word.removesuffix("</w>")) == 1})
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate([*bytes_, *special])},
        merges=[],
        additional_special_tokens=special[1:],
        chat_template=CHAT,
        model_max_length=1024,
    )


def tiny_z_image(folder: Path, seed: int = 0, shift: float = 6.0, **transformer) -> Path:
    """A Z-Image whose Qwen3 is 32 wide; with shift 3, as its Turbo has it."""
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer()
    small = {"n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    rope = {"axes_dims": [4, 6, 6], "axes_lens": [640, 64, 64]}
    ZImagePipeline(
        vae=vae(16, **FLUX_VAE),
        tokenizer=tokenizer,
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=16,
                max_position_embeddings=1024,
            )
        ),
        transformer=lively(ZImageTransformer2DModel(dim=32, cap_feat_dim=32, **small, **rope, **transformer)),
        scheduler=flow_scheduler(shift=shift),
    ).save_pretrained(folder)
    return folder


def tiny_sd3(folder: Path, seed: int = 0) -> Path:
    """An SD3 whose text encoders are 24, 40 and 64 wide."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = clip_tokenizer(), clip_tokenizer("!")
    StableDiffusion3Pipeline(
        vae=vae(16, scaling_factor=1.5305, shift_factor=0.0609, force_upcast=True),
        tokenizer=tokenizer,
        text_encoder=clip_text_model(
            CLIPTextModelWithProjection, tokenizer, 24, num_hidden_layers=2, projection_dim=24
        ),
        tokenizer_2=tokenizer_2,
        text_encoder_2=clip_text_model(
            CLIPTextModelWithProjection, tokenizer_2, 40, num_hidden_layers=2, projection_dim=40, hidden_act="gelu"
        ),
        tokenizer_3=t5_tokenizer(512),
        text_encoder_3=t5_encoder(64),
        transformer=lively(
            SD3Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=64,
                caption_projection_dim=32,
                pooled_projection_dim=24 + 40,
                out_channels=16,
                pos_embed_max_size=24,
                qk_norm="rms_norm",
            )
        ),
        scheduler=flow_scheduler(shift=3.0),
    ).save_pretrained(folder)
    return folder


def tiny_flux(folder: Path, seed: int = 0, guidance: bool = True, **scheduler) -> Path:
    """A FLUX.1 whose CLIP is 24 wide and whose T5 is 40 wide: dev, or without a guidance embedding schnell."""
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    FluxPipeline(
        vae=vae(16, **FLUX_VAE),
        tokenizer=tokenizer,
        text_encoder=clip_text_model(CLIPTextModel, tokenizer, 24, num_hidden_layers=2),
        tokenizer_2=t5_tokenizer(512),
        text_encoder_2=t5_encoder(40),
        transformer=lively(
            FluxTransformer2DModel(
                in_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=40,
                pooled_projection_dim=24,
                guidance_embeds=guidance,
                axes_dims_rope=(4, 6, 6),
            )
        ),
        scheduler=flow_scheduler(**{"shift": 3.0 if guidance else 1.0, "use_dynamic_shifting": guidance} | scheduler),
    ).save_pretrained(folder)
    return folder
