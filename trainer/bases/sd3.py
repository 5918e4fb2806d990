"""Stable Diffusion 3 and 3.5: a transformer that reads CLIP-L's, CLIP-G's and T5's states."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from trainer.bases.flow import Flow
from trainer.bases.schedules import Preset, Schedule
from trainer.bases.t5 import encode_by_length, predict_by_length

T5_TOKENS = 77  # to which ComfyUI fills up shorter prompts; diffusers' pipeline to 256


class StableDiffusion3(Flow):
    """SD3 and SD3.5, medium and large, with all three of their text encoders."""

    title = "SD3.5"
    pipeline = "StableDiffusion3Pipeline"
    components: ClassVar = {
        "_class_name": "StableDiffusion3Pipeline",
        "transformer": "SD3Transformer2DModel",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
    }
    presets: ClassVar = {
        # cfg and steps of ComfyUI's template (4.01, 20). At shift 3 ten of the pipeline's steps have 1 - sigma = .040,
        # SDXL's .046.
        "sd3.5": Preset(4.0, 1.0, Schedule("euler", 10), steps=20),
        # no file tells it from large; 4 steps without guidance are what it was distilled to
        "sd3.5-large-turbo": Preset(1.0, 1.0, Schedule("euler", 4), steps=4, guidance="none"),
    }
    family = "sd3"

    @property
    def patch(self) -> int:
        return self.network.config.patch_size

    @property
    def longest(self) -> int:
        return self.network.config.pos_embed_max_size * self.multiple

    @property
    def prompt_dim(self) -> int:
        return self.network.config.joint_attention_dim

    @property
    def prompt_tokens(self) -> int:
        return self.pipe.tokenizer_max_length + T5_TOKENS

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        """CLIP's tokens, L's and G's side by side and zeros up to T5's width, then T5's."""

        def encode(prompts: list[str], t5_tokens: int) -> dict[str, Tensor]:
            embeds, _, pooled, _ = self.pipe.encode_prompt(
                prompts,
                None,
                None,
                device=self.pipe.text_encoder.device,
                do_classifier_free_guidance=False,
                max_sequence_length=t5_tokens,
            )
            return {"prompt_embeds": embeds, "pooled": pooled}

        return encode_by_length(self.pipe.tokenizer_3, prompts, T5_TOKENS, encode)

    def set_timesteps(self, scheduler, steps: int, shape: tuple[int, int, int]) -> None:
        dynamic = {"mu": self.shift(scheduler, shape)} if scheduler.config.use_dynamic_shifting else {}
        scheduler.set_timesteps(steps, device=self.device, **dynamic)

    def run_network(
        self, x: Tensor, t: Tensor, inputs: dict[str, Tensor], cfg: float, control: Tensor | None
    ) -> Tensor:
        def predict(x: Tensor, told: dict[str, Tensor]) -> Tensor:
            return self.network(
                x,
                timestep=t.expand(len(x)),
                encoder_hidden_states=told["prompt_embeds"],
                pooled_projections=told["pooled"],
                return_dict=False,
            )[0]

        return predict_by_length(predict, x, inputs)
