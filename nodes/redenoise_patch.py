"""Re-denoise (Model): every sampler of a model starts from what re-denoising makes of its noise. No net is needed."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from comfy_api.latest import io
from tqdm.auto import tqdm

from ..npnet_core.errors import InputError
from ..npnet_core.redenoising import INVERSIONS, INVERSIONS_HELP, evaluations
from .conditioning import base_family, negative_of, positive_of, start_at
from .latents import NESTED, image_noise
from .redenoise import GUIDANCE, REDENOISE_MODEL
from .redenoising import DISTILLED, RedenoisingGuider, as_conditioning, redenoised, redenoiser
from .start_patch import REDENOISE, patched, starts_from_noise
from .versions import known, search_aliases

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RedenoisedStart:
    """An OUTER_SAMPLE wrapper: sampling that starts from noise starts from the target of Re-denoise Pair.

    The sampler's guider only lends its model and conditionings, so its cfg and its progress stay as they are.

    Args:
        options: cfg, inversion_cfg, rounds, inversion and depth of :func:`npnet_core.redenoising.redenoise`.
        sibling: the model that re-denoises in the sampler's place, if one does.
    """

    options: dict
    sibling: ModelPatcher | None = None

    def __call__(
        self, executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False,
        seed=None, **kwargs,
    ):  # fmt: skip
        guider, model = executor.class_obj, executor.class_obj.model_patcher
        if len(kwargs.get("latent_shapes") or ()) > 1:  # ComfyUI has packed them into one tensor
            raise InputError(NESTED)
        image_noise(noise)  # refuses what is no image
        mask = denoise_mask
        if mask is not None and mask.shape == noise.shape:  # a newer ComfyUI has prepared it, and would so again
            mask = mask[:, :1]  # else it takes channels for items
        if not (noise.any() and starts_from_noise(model.get_model_object("model_sampling"), sigmas, latent_image)):
            log.info("NPNet: sampling does not start from noise here, so the noise is left as it is.")
        else:
            total = evaluations(self.options["rounds"], self.options["inversion"], self.options["depth"])
            with tqdm(total=total, desc="Re-denoising", disable=disable_pbar) as bar:
                noise = redenoised(
                    self.guider(guider, start_at(model, sigmas, noise.shape)),
                    noise,
                    latent_image,
                    sigmas,
                    self.options,
                    lambda *_: bar.update(),
                    denoise_mask=mask,
                    disable_pbar=True,
                    seed=seed,
                )
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **kwargs)

    def guider(self, sampling, start) -> RedenoisingGuider:
        """What re-denoises, with the conditionings of the guider that samples.

        Raises:
            InputError: as :class:`RedenoisingGuider` and :func:`redenoiser`; for a guider without a positive prompt;
                for what can only be a distilled model; for a guider of two models.
        """
        other = getattr(sampling, "uncond_model_patcher", None)
        if other is not None and not other.is_clone(sampling.model_patcher):
            raise InputError(
                "DualModelGuider samples with another model for the negative prompt, one model for both was expected: "
                "to re-denoise, sample with KSampler or CFGGuider."
            )
        positive, negative = positive_of(sampling.original_conds), negative_of(sampling.original_conds)
        if positive is None:
            raise InputError(
                f"Sampling has conditionings {', '.join(sampling.original_conds)} and no positive one: to re-denoise, "
                "sample with a positive prompt."
            )
        model = redenoiser(sampling.model_patcher, self.sibling, base_family(positive, start))
        guider = RedenoisingGuider(model, positive, negative, self.options["cfg"], self.options["inversion_cfg"])
        zeroed = not any(embeds.any() for embeds, _ in as_conditioning(negative or []) if embeds is not None)
        # another kind of set_cfg leaves `cfg` at the 1 that it begins with (DualCFGGuider)
        unguided = type(sampling).set_cfg is CFGGuider.set_cfg and sampling.cfg == 1 and zeroed and not guider.embedding
        if unguided and guider.is_flow and self.sibling is None:
            raise InputError(
                "The sampler's cfg is 1 and its negative prompt zeroed, as for a distilled model without guidance that "
                f"{DISTILLED}, or for another model encode a negative prompt."
            )
        return guider


class NPNetRedenoisePatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetRedenoisePatch",
            display_name="Re-denoise (Model)",
            category="NPNet",
            description="Lets every sampler that uses this model start from re-denoised noise: golden noise without a "
            "net, for any image model. Where sampling does not start from noise nothing changes.",
            **search_aliases(
                "golden noise, re-denoising, z-sampling, initial noise, better seed, 黄金噪声, 重去噪, 反演"
            ),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with or without LoRAs."),
                io.Float.Input("cfg", default=5.5, tooltip="Guidance of the denoising step.", **GUIDANCE),
                io.Float.Input("inversion_cfg", default=1.0, tooltip="Guidance of the inversion step.", **GUIDANCE),
                io.Int.Input(
                    "depth",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="How many steps of the sampler's own schedule are taken down and back: more make a larger "
                    "change, as does a schedule of fewer steps.",
                ),
                io.Combo.Input(
                    "inversion",
                    options=list(INVERSIONS),
                    default="exact",
                    tooltip=INVERSIONS_HELP,
                    **known(io.Combo.Input, advanced=True),
                ),
                REDENOISE_MODEL,
            ],
            outputs=[
                io.Model.Output("patched_model", display_name="model", tooltip="For KSampler and every other sampler.")
            ],
        )

    @classmethod
    def execute(cls, model, redenoise_model=None, **options) -> io.NodeOutput:
        return io.NodeOutput(patched(model, REDENOISE, RedenoisedStart({"rounds": 1, **options}, redenoise_model)))
