"""Hunyuan-DiT: a transformer that reads BERT's hidden states and T5's; nets see BERT's."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.bases.diffusion import Diffusion
from trainer.bases.schedules import Preset, Schedule

BERT_TOKENS = 77
T5_TOKENS = 256


class HunyuanDiT(Diffusion):
    """Hunyuan-DiT, whose network gives a variance beside the prediction and is told the size of the picture."""

    title = "Hunyuan-DiT"
    pipeline = "HunyuanDiTPipeline"
    components: ClassVar = {
        "transformer": "HunyuanDiT2DModel",
        "text_encoder": "BertModel",
        "text_encoder_2": "T5EncoderModel",
    }
    load_options: ClassVar = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    presets: ClassVar = {"hunyuan-dit": Preset(5.0, 1.0, Schedule("ddim", 10))}  # the paper's
    family = "hunyuan-dit"
    prompt_tokens = BERT_TOKENS

    @property
    def network(self) -> nn.Module:
        return self.pipe.transformer

    @property
    def prompt_dim(self) -> int:
        return self.pipe.text_encoder.config.hidden_size

    @property
    def multiple(self) -> int:
        return self.pixels * self.network.config.patch_size

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        encoder = self.pipe.text_encoder
        one_branch = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        bert, _, bert_mask, _ = self.pipe.encode_prompt(
            prompts, encoder.device, encoder.dtype, **one_branch, max_sequence_length=BERT_TOKENS, text_encoder_index=0
        )
        t5, _, t5_mask, _ = self.pipe.encode_prompt(
            prompts, encoder.device, encoder.dtype, **one_branch, max_sequence_length=T5_TOKENS, text_encoder_index=1
        )
        return {"prompt_embeds": bert, "mask": bert_mask, "t5_embeds": t5, "t5_mask": t5_mask}

    def run_network(
        self, x: Tensor, t: Tensor, inputs: dict[str, Tensor], cfg: float, control: Tensor | None
    ) -> Tensor:
        from diffusers.models.embeddings import get_2d_rotary_pos_embed
        from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

        network, patch = self.network, self.network.config.patch_size
        height, width = (side * self.pixels for side in x.shape[-2:])
        grid = tuple(side // patch for side in x.shape[-2:])
        crops = get_resize_crop_region_for_grid(grid, 512 // 8 // patch)
        rotary = get_2d_rotary_pos_embed(
            network.inner_dim // network.num_heads, crops, grid, device=x.device, output_type="pt"
        )
        output = network(
            x,
            t.to(x.dtype).expand(len(x)),  # its precision decides that of all embeddings
            encoder_hidden_states=inputs["prompt_embeds"],
            text_embedding_mask=inputs["mask"],
            encoder_hidden_states_t5=inputs["t5_embeds"],
            text_embedding_mask_t5=inputs["t5_mask"],
            # the pipeline's defaults: original size, target size, crop
            image_meta_size=x.new_tensor([1024, 1024, height, width, 0, 0]).repeat(len(x), 1),
            style=torch.zeros(len(x), dtype=torch.long, device=x.device),
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        return output[:, : self.channels]
