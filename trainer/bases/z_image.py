"""Z-Image: a single-stream transformer that reads the last but one hidden states of Qwen3."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainer.bases.flow import Flow
from trainer.bases.schedules import Guidance, Preset, Schedule

TOKENS = 512  # the pipeline's max_sequence_length, chat template included
TURBO = {"shift": 3.0, "dim": 3840}  # of the published scheduler and network; the base's shift is 6


class ZImage(Flow):
    """Z-Image and its Turbo. diffusers counts guidance as cfg - 1 and time from 0 at pure noise to 1, and turns the
    velocity round.
    """

    title = "Z-Image"
    pipeline = "ZImagePipeline"
    components: ClassVar = {
        "_class_name": "ZImagePipeline",
        "transformer": "ZImageTransformer2DModel",
        "text_encoder": "Qwen3Model",
    }
    presets: ClassVar = {
        # cfg 4 and 25 steps: ComfyUI's template. A step at shift 6 is small, x' - x = (1 - sigma) (w - w') (...) with
        # 1 - sigma = .018 at 10 steps; two steps deep it is .04, where SDXL's ten steps have .046.
        "z-image": Preset(4.0, 1.0, Schedule("euler", 10), steps=25, depth=2),
        # 8 steps: the example in diffusers' pipeline, and ComfyUI's template. At shift 3 they have 1 - sigma = .045.
        "z-image-turbo": Preset(1.0, 1.0, Schedule("euler", 8), steps=8, guidance="none"),
    }
    family = "z-image"
    prompt_tokens = TOKENS

    @property
    def guidance(self) -> Guidance:
        """Built into Turbo, whose published files differ from its base's in the shift alone. A model of one's own, of
        another width, may have any shift.
        """
        turbo = {"shift": self.pipe.scheduler.config.shift, "dim": self.network.config.dim} == TURBO
        return "none" if (turbo if self.distilled is None else self.distilled) else "cfg"

    @property
    def patch(self) -> int:
        return self.network.config.all_patch_size[0]

    @property
    def longest(self) -> int:
        return min(self.network.config.axes_lens[1:]) * self.multiple

    @property
    def output_layer(self) -> str:
        return f"all_final_layer.{self.patch}-{self.network.config.all_f_patch_size[0]}.linear"

    @property
    def prompt_dim(self) -> int:
        return self.pipe.text_encoder.config.hidden_size

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, _ = self.pipe.encode_prompt(
            list(prompts),  # which the pipeline changes
            self.pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=min(TOKENS, self._longest(prompts)),  # Qwen3 is causal: what is behind does not matter
        )
        lengths = torch.tensor([len(each) for each in embeds], device=embeds[0].device)
        padded = pad_sequence(embeds, batch_first=True)
        return {
            "prompt_embeds": padded,
            "prompt_mask": torch.arange(padded.shape[1], device=padded.device) < lengths[:, None],
        }

    def _longest(self, prompts: list[str]) -> int:
        """Tokens of the longest of the prompts with its template."""
        tokenizer, template = self.pipe.tokenizer, {"tokenize": False, "add_generation_prompt": True}
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = [tokenizer.apply_chat_template(turn, **template, enable_thinking=True) for turn in turns]
        return max(map(len, tokenizer(texts).input_ids))

    def set_timesteps(self, scheduler, steps: int, shape: tuple[int, int, int]) -> None:
        sigmas = torch.linspace(1.0, 1 / steps, steps).tolist()
        scheduler.set_timesteps(steps, device=self.device, sigmas=sigmas, mu=self.shift(scheduler, shape))

    def run_network(
        self, x: Tensor, t: Tensor, inputs: dict[str, Tensor], cfg: float, control: Tensor | None
    ) -> Tensor:
        lengths = inputs["prompt_mask"].sum(1).tolist()
        output = self.network(
            list(x[:, :, None]),  # one frame
            ((1000 - t) / 1000).expand(len(x)),
            [embeds[:length] for embeds, length in zip(inputs["prompt_embeds"], lengths, strict=True)],
            patch_size=self.patch,
            f_patch_size=self.network.config.all_f_patch_size[0],
            return_dict=False,
        )[0]
        return -torch.stack(output)[:, :, 0]
