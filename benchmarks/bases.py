"""What a net costs beside one prediction of its base, from shapes alone: ``python -m benchmarks.bases``.

For 1024x1024 pixels and as many tokens as the base's pipeline gives at most. The bases are diffusers' own classes
with their published configs, on the meta device: no weight is loaded, nothing is computed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from npnet_core.config import UNetConfig, narrow_prompt
from npnet_core.flops import flops, net_flops

PIXELS = 1024
Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """A base: channels of its latents, at an eighth of the pixels, its prompts, and what makes one prediction of it."""

    name: str
    channels: int
    tokens: int
    prompt_dim: int
    prediction: Callable[[], Call]


def sdxl() -> Call:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    more = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
    return partial(unet, latent(4), torch.empty(1), torch.empty(1, 77, 2048), added_cond_kwargs=more)


def sd3(**config) -> Call:
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(**config)
    return partial(transformer, latent(16), torch.empty(1, 333, 4096), torch.empty(1, 2048), torch.empty(1))


def sd35_medium() -> Call:
    return sd3(
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(13)),
        qk_norm="rms_norm",
    )


def sd35_large() -> Call:
    return sd3(
        num_layers=38,
        num_attention_heads=38,
        caption_projection_dim=2432,
        pos_embed_max_size=192,
        qk_norm="rms_norm",
    )


def flux1() -> Call:
    from diffusers import FluxTransformer2DModel

    transformer, patches = FluxTransformer2DModel(guidance_embeds=True), (PIXELS // 16) ** 2
    return partial(
        transformer,
        torch.empty(1, patches, 64),
        torch.empty(1, 512, 4096),
        torch.empty(1, 768),
        torch.empty(1),
        torch.empty(patches, 3),
        torch.empty(512, 3),
        torch.empty(1),
    )


def z_image() -> Call:
    from diffusers import ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel()
    return partial(transformer, [latent(16)[0][:, None]], torch.empty(1), [torch.empty(512, 2560)])


def krea2() -> Call:
    from diffusers import Krea2Transformer2DModel

    transformer, patches = Krea2Transformer2DModel(), (PIXELS // 16) ** 2
    positions = torch.empty(512 + patches, 3)
    prompt, mask = torch.empty(1, 512, 12, 2560), torch.ones(1, 512, dtype=torch.bool)
    return partial(transformer, torch.empty(1, patches, 64), prompt, torch.empty(1), positions, mask)


def latent(channels: int) -> torch.Tensor:
    return torch.empty(1, channels, PIXELS // 8, PIXELS // 8)


BASES = (
    Row("SDXL", 4, 77, 2048, sdxl),
    Row("SD3.5 medium", 16, 333, 4096, sd35_medium),
    Row("SD3.5 large", 16, 333, 4096, sd35_large),
    Row("FLUX.1", 16, 512, 4096, flux1),
    Row("Z-Image", 16, 512, 2560, z_image),
    Row("Krea-2", 16, 512, 30720, krea2),
)


def net_for(row: Row) -> UNetConfig:
    """The U-Net that ``npnet fit`` makes for this base unless it is told other widths."""
    narrow = narrow_prompt(row.prompt_dim)
    return UNetConfig("", row.channels, PIXELS // 8, row.tokens, row.prompt_dim, prompt_width=narrow)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| base | tokens | one prediction, TFLOP | U-Net, GFLOP | share |\n|---|---|---|---|---|")
    for row in BASES:
        with torch.device("meta"), torch.no_grad():
            prediction = flops(row.prediction())
        net = net_flops(net_for(row))
        share = f"{net / prediction:.2%}"
        print(f"| {row.name} | {row.tokens} x {row.prompt_dim} | {prediction / 1e12:.2f} | {net / 1e9:.2f} | {share} |")


if __name__ == "__main__":
    main()
