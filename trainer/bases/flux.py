"""FLUX.1: a transformer that reads T5's states and CLIP-L's pooled one, and is told the guidance scale."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from trainer.bases.flow import Flow
from trainer.bases.schedules import Guidance, Preset, Schedule
from trainer.bases.t5 import encode_by_length, predict_by_length

T5_TOKENS = 256  # to which ComfyUI fills up shorter prompts; diffusers' pipeline to 512


class Flux(Flow):
    """FLUX.1 dev, Krea dev and schnell. Its tokens are 2x2 latent pixels, which are packed for the network alone."""

    title = "FLUX.1"
    pipeline = "FluxPipeline"
    components: ClassVar = {
        "_class_name": "FluxPipeline",
        "transformer": "FluxTransformer2DModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    }
    presets: ClassVar = {
        # The guidance of the pipeline and of ComfyUI's template, whose steps are 20; 1 back, as FLUX is inverted
        # (RF-Solver, FireFlow). At 1024x1024 eight steps have 1 - sigma = .043, where SDXL's ten have .046.
        "flux1-dev": Preset(3.5, 1.0, Schedule("euler", 8), steps=20, guidance="embedding"),
        # the guidance of the model's card; no file tells it from dev
        "flux1-krea-dev": Preset(4.5, 1.0, Schedule("euler", 8), steps=28, guidance="embedding"),
        # the pipeline's 4 steps; without shift eight of them have 1 - sigma = .125
        "flux1-schnell": Preset(1.0, 1.0, Schedule("euler", 8), steps=4, guidance="none"),
    }
    family = "flux"
    patch = 2
    prompt_tokens = T5_TOKENS

    @property
    def guidance(self) -> Guidance:
        """An embedding in dev, built into schnell, whose network has no place for it."""
        if self.network.config.guidance_embeds:
            return "embedding"
        return "cfg" if self.distilled is False else "none"

    @property
    def channels(self) -> int:
        return self.network.config.in_channels // self.patch**2

    @property
    def prompt_dim(self) -> int:
        return self.network.config.joint_attention_dim

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        def encode(prompts: list[str], tokens: int) -> dict[str, Tensor]:
            device = self.pipe.text_encoder.device
            embeds, pooled, _ = self.pipe.encode_prompt(prompts, device=device, max_sequence_length=tokens)
            return {"prompt_embeds": embeds, "pooled": pooled}

        return encode_by_length(self.pipe.tokenizer_2, prompts, T5_TOKENS, encode)

    def set_timesteps(self, scheduler, steps: int, shape: tuple[int, int, int]) -> None:
        sigmas = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, device=self.device, sigmas=sigmas, mu=self.shift(scheduler, shape))

    def run_network(
        self, x: Tensor, t: Tensor, inputs: dict[str, Tensor], cfg: float, control: Tensor | None
    ) -> Tensor:
        height, width = (side // self.patch for side in x.shape[-2:])
        places = torch.cartesian_prod(torch.tensor([0]), torch.arange(height), torch.arange(width)).to(x)
        told_scale = self.network.config.guidance_embeds

        def predict(x: Tensor, told: dict[str, Tensor]) -> Tensor:
            return self.network(
                rearrange(x, "b c (h i) (w j) -> b (h w) (c i j)", i=self.patch, j=self.patch),
                encoder_hidden_states=told["prompt_embeds"],
                pooled_projections=told["pooled"],
                timestep=t.to(x.dtype).expand(len(x)) / 1000,
                img_ids=places,
                txt_ids=x.new_zeros(told["prompt_embeds"].shape[1], 3),
                guidance=torch.full([len(x)], float(cfg), device=x.device) if told_scale else None,
                return_dict=False,
            )[0]

        packed = predict_by_length(predict, x, inputs)
        return rearrange(packed, "b (h w) (c i j) -> b c (h i) (w j)", h=height, i=self.patch, j=self.patch)
