"""Stable Diffusion 1.x, 2.x and XL: a UNet that reads CLIP's hidden states."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from npnet_core.errors import InputError
from trainer.bases.diffusion import Diffusion
from trainer.bases.schedules import Preset, Schedule


class StableDiffusion(Diffusion):
    """SD 1.x and 2.x, told apart by the width of their text encoder: ``sd1``, ``sd2``, or ``sd`` for any other."""

    title = "SD 1.x, SD 2.x"
    pipeline = "StableDiffusionPipeline"
    components: ClassVar = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "text_encoder_2": None}
    load_options: ClassVar = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    takes_additions = True
    takes_single_files = True

    @property
    def family(self) -> str:
        return {768: "sd1", 1024: "sd2"}.get(self.pipe.text_encoder.config.hidden_size, "sd")

    @property
    def network(self) -> nn.Module:
        return self.pipe.unet

    @property
    def prompt_dim(self) -> int:
        return self.pipe.text_encoder.config.hidden_size

    @property
    def guidance(self) -> str:
        """LCM's distilled UNets are told the guidance scale and were trained without a second branch."""
        return super().guidance if self.network.config.get("time_cond_proj_dim") is None else "embedding"

    @property
    def align_your_steps(self) -> str | None:
        return "StableDiffusionTimesteps" if self.family == "sd1" else None

    def check(self) -> None:
        super().check()
        positions = self.pipe.text_encoder.config.max_position_embeddings
        if any(tokenizer.model_max_length > positions for tokenizer in self.tokenizers):
            raise InputError(
                f"{self.source} has a tokenizer that does not know how many tokens its text encoder reads: its "
                "tokenizer_config.json is missing, so download it again."
            )

    @property
    def tokenizers(self) -> list:
        return [self.pipe.tokenizer]

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, _ = self.pipe.encode_prompt(prompts, self.pipe.text_encoder.device, 1, False)
        return {"prompt_embeds": embeds}

    def conditioning(self, x: Tensor, inputs: dict[str, Tensor]) -> dict:
        """What UNet and ControlNet are told of the prompts, and for SDXL of the picture."""
        return {"encoder_hidden_states": inputs["prompt_embeds"]}

    def run_network(
        self, x: Tensor, t: Tensor, inputs: dict[str, Tensor], cfg: float, control: Tensor | None
    ) -> Tensor:
        cond = self.conditioning(x, inputs)
        if control is not None:
            cond |= self._residuals(x, t, cond, control)
        if self.guidance == "embedding":
            width = self.network.config.time_cond_proj_dim
            embedding = self.pipe.get_guidance_scale_embedding(torch.tensor([cfg - 1.0]), width)
            cond["timestep_cond"] = embedding.to(x).expand(len(x), -1)
        return self.network(x, t, return_dict=False, **cond)[0]

    def _residuals(self, x: Tensor, t: Tensor, cond: dict, control: Tensor) -> dict:
        """What the ControlNet adds to the UNet's features."""
        control = control.to(x).repeat(len(x) // len(control), 1, 1, 1)
        down, middle = self.controlnet(x, t, controlnet_cond=control, return_dict=False, **cond)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


class StableDiffusionXL(StableDiffusion):
    """SDXL and what descends from it: two encoders' penultimate states, a pooled embedding, the picture's size."""

    title = "SDXL"
    pipeline = "StableDiffusionXLPipeline"
    components: ClassVar = {
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    }
    load_options: ClassVar = {}
    presets: ClassVar = {  # the paper's
        "sdxl": Preset(5.5, 1.0, Schedule("ddim", 10)),
        "dreamshaper-xl-turbo": Preset(3.5, 1.0, Schedule("dpm-solver-multistep", 4), steps=4),
        # ours: the card's at most 4 steps, ComfyUI's template's sampler; no file tells it from SDXL
        "sdxl-turbo": Preset(1.0, 1.0, Schedule("euler-ancestral", 4), steps=4, guidance="none"),
    }
    family = "sdxl"
    align_your_steps = "StableDiffusionXLTimesteps"

    @property
    def tokenizers(self) -> list:
        return [self.pipe.tokenizer, self.pipe.tokenizer_2]

    @property
    def prompt_dim(self) -> int:
        return self.pipe.text_encoder.config.hidden_size + self.pipe.text_encoder_2.config.hidden_size

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompts,
            device=self.pipe.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return {"prompt_embeds": embeds, "pooled": pooled}

    def unconditional(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        """Zeros, as in the released collection code, whatever the folder says."""
        return {name: torch.zeros_like(value[:1]) for name, value in cond.items()}

    def conditioning(self, x: Tensor, inputs: dict[str, Tensor]) -> dict:
        size = tuple(side * self.pixels for side in x.shape[-2:])
        time_ids = x.new_tensor([*size, 0, 0, *size]).expand(len(x), 6)  # original size, crop, target size
        picture = {"text_embeds": inputs["pooled"], "time_ids": time_ids}
        return super().conditioning(x, inputs) | {"added_cond_kwargs": picture}
