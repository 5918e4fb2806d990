"""The parts of the tiny text-to-image models, untrained: diffusers' and transformers' own classes at small size.

Widths are multiples of 32, so that ComfyUI's networks, whose normalisation has 32 groups, can hold the weights too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from npnet_core.preference.shapes.captions import BY_CAPTION
from trainer.shapes import world

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        StableDiffusionPipeline,
        UNet2DConditionModel,
        ZImagePipeline,
        ZImageTransformer2DModel,
    )
    from transformers import CLIPTextModel, CLIPTokenizer, Qwen2Tokenizer, Qwen3Model

TOKENS = 16  # start, the fourteen words of the longest caption, end
WIDTH = 64  # of a prompt embedding
PIXELS = 4  # per latent pixel and side
CHANNELS = 4

CHAT = (  # Qwen's, for a single turn of the user
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def stable_diffusion(vae: AutoencoderKL) -> StableDiffusionPipeline:
    """A Stable Diffusion around an autoencoder, with fresh weights from torch's global seed."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    words = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=clip(words),
        tokenizer=words,
        unet=unet(),
        scheduler=DDIMScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            timestep_spacing="leading",
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def z_image(vae: AutoencoderKL) -> ZImagePipeline:
    """A Z-Image around an autoencoder, with fresh weights from torch's global seed."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

    words = qwen_tokenizer()
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=qwen(words),
        tokenizer=words,
        transformer=transformer(),
    )


def autoencoder() -> AutoencoderKL:
    """Latents of 4 channels and a quarter of the side."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=32,
        sample_size=world.SIZE[0],
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
    )


def unet() -> UNet2DConditionModel:
    """Stable Diffusion's, two levels deep."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=world.SIZE[0] // PIXELS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 96),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 3),  # the number of heads: 32 wide each
        norm_num_groups=32,
    )


def transformer() -> ZImageTransformer2DModel:
    """Z-Image's: 16 patches of 2x2 latent pixels, padded to 32 tokens, and 32 of the prompt."""
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=128,
        n_layers=5,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 12, 12],
        axes_lens=[128, 32, 32],
    )


def captions_words() -> list[str]:
    """Every word of every caption."""
    return sorted({word for caption in BY_CAPTION for word in caption.split()})


def merges_for(words: list[list[str]], known: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The merges that put words, lists of symbols, together from the left, and the tokens that they make.

    Longer words come first, so that no shorter one's merge takes a piece out of them. A longer one's may out of a
    shorter, as "bottom" does of "above", which stays four tokens: the shipped model has learnt it so.
    """
    merges: dict[tuple[str, str], None] = {}
    tokens = dict.fromkeys(known)
    for start, *rest in sorted(words, key=lambda word: (-len(word), word)):
        for symbol in rest:
            merges[start, symbol] = None
            start += symbol
            tokens[start] = None
    return list(merges), list(tokens)


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's, with a vocabulary of single letters and the captions' words."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [[*word[:-1], word[-1] + "</w>"] for word in captions_words()]
    merges, tokens = merges_for(words, [*letters, *(letter + "</w>" for letter in letters)])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=TOKENS)


def clip(words: CLIPTokenizer) -> CLIPTextModel:
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


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen's, with a vocabulary of bytes and the words of captions and chat template."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [list(word) for word in ("user", "assistant", "a", "two", "three")]
    words += [["Ġ", *word] for word in captions_words()]
    merges, tokens = merges_for(words, sorted(bytes_to_unicode().values()))
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate([*tokens, *special])},
        merges=merges,
        pad_token=special[0],
        eos_token=special[2],
        additional_special_tokens=special[1:],
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen(words: Qwen2Tokenizer) -> Qwen3Model:
    """Three layers; Z-Image reads what goes into the last."""
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(
        Qwen3Config(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=WIDTH // 4,
            max_position_embeddings=512,
            pad_token_id=words.pad_token_id,
            eos_token_id=words.eos_token_id,
            tie_word_embeddings=True,
        )
    )
