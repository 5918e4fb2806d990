"""The parts of the tiny text-to-image model, untrained: diffusers' and transformers' own classes at small size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.shapes import world

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

TOKENS = 10  # start, the eight words of the longest caption, end
WIDTH = 64  # of the prompt embedding
PIXELS = 2  # per latent pixel and side


def pipeline() -> StableDiffusionPipeline:
    """All parts with fresh weights from torch's global seed; saved, it is a folder like any other model's."""
    from diffusers import StableDiffusionPipeline

    words = tokenizer()
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(words),
        tokenizer=words,
        unet=unet(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tokenizer() -> CLIPTokenizer:
    """CLIP's, with a vocabulary of single letters and the captions' words."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens, merges = [*letters, *(letter + "</w>" for letter in letters)], []
    words = {word for phrase in (*world.COLOURS, *world.SHAPES, *world.RELATIONS) for word in phrase.split()}
    for word in sorted(words, key=lambda word: (-len(word), word)):  # "tr" of triangle before "ri" of right
        start, *rest = [*word[:-1], word[-1] + "</w>"]
        for letter in rest:  # the merges that put the word together from the left
            if (start, letter) not in merges:
                merges.append((start, letter))
                tokens.append(start + letter)
            start += letter
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def autoencoder() -> AutoencoderKL:
    """Latents of 4 channels and half the side."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=world.SIZE[0],
        scaling_factor=1.0,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def unet() -> UNet2DConditionModel:
    """The prompt enters through attention at half of the latent's side and, pooled, with the timestep."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=world.SIZE[0] // PIXELS,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96),
        down_block_types=("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=24,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=8,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="leading",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
