"""Re-denoise Pair: a noise → what re-denoising makes of it (Stage I of the paper), through ComfyUI's sampling."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import comfy.sample
import comfy.utils
import latent_preview
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..npnet_core.errors import InputError
from ..npnet_core.redenoising import INVERSIONS, INVERSIONS_HELP, evaluations
from .conditioning import base_family, start_at
from .latents import image_noise
from .redenoising import RedenoisingGuider, noise_levels, redenoised, redenoiser
from .versions import known, search_aliases

PairSocket = io.Custom("NOISE_PAIR")


@dataclass(frozen=True)
class FixedNoise:
    """A NOISE that was computed before, for one latent."""

    noise: Tensor
    seed: int

    def generate_noise(self, latent: dict) -> Tensor:
        samples = latent["samples"]
        if samples.shape != self.noise.shape:
            raise InputError(
                f"A latent of shape {list(samples.shape)} came for noise of shape {list(self.noise.shape)}: sample "
                "with the latent that Re-denoise Pair was given."
            )
        return self.noise.to(samples.dtype)


@dataclass(frozen=True)
class NoisePair:
    """A NOISE_PAIR: a batch of source and target noises, how they were made, and what preference models made of them.

    Args:
        source, target: of unit variance, [B, C, H, W] each, or as the model holds images (:mod:`.latents`).
        seed: the source's.
        items: [B], which noise of the seed's stream each one is.
        base_family: of the prompt, as in :class:`npnet_core.config.Config`.
        sigmas: the noise levels that it was made between, noisiest first, one more than steps were taken down.
        cfg, inversion_cfg, rounds, inversion: as in :func:`npnet_core.redenoising.redenoise`.
        guidance, redenoised_with: as in :class:`npnet_core.npd.Manifest`.
        scores: scorer → raw scores of source and target images, [B] each.
        kept: [B], whether every filter so far prefers the target.
    """

    source: Tensor
    target: Tensor
    seed: int
    items: tuple[int, ...]
    base_family: str
    sigmas: tuple[float, ...]
    cfg: float
    inversion_cfg: float
    rounds: int
    inversion: str
    kept: tuple[bool, ...]
    guidance: str = "cfg"
    redenoised_with: str | None = None
    scores: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def redenoise_pair(
    model: ModelPatcher,
    positive: list,
    negative: list,
    noise,
    sigmas: Tensor,
    latent: dict,
    options: dict,
    sibling: ModelPatcher | None = None,
) -> NoisePair:
    """The pair of a noise and what re-denoising makes of it.

    Args:
        noise: a NOISE.
        sigmas: a schedule, of which the first values are read, one more than the depth.
        latent: a LATENT.
        options: cfg, inversion_cfg, rounds, inversion and depth of :func:`npnet_core.redenoising.redenoise`.
        sibling: the model that re-denoises in its place, if one does.
    """
    noise_levels(model.get_model_object("model_sampling"), sigmas, options["inversion"], options["depth"])
    samples = fixed_empty(model, latent)
    family = base_family(positive, start_at(model, sigmas, samples.shape))
    guider = RedenoisingGuider(
        redenoiser(model, sibling, family), positive, negative, options["cfg"], options["inversion_cfg"]
    )
    source = noise.generate_noise({**latent, "samples": samples})
    image_noise(source)  # refuses what is no image
    if not source.any():
        raise InputError("All-zero noise came, which has no better noise beside it: connect RandomNoise.")
    total = evaluations(options["rounds"], options["inversion"], options["depth"])
    preview = latent_preview.prepare_callback(model, total)
    target = redenoised(
        guider,
        source,
        samples,
        sigmas,
        options,
        lambda done, denoised, x: preview(done, denoised, x, total),
        denoise_mask=latent.get("noise_mask"),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=noise.seed,
    )
    depth = options.pop("depth")
    return NoisePair(
        source=source,
        target=target,
        seed=noise.seed,
        items=tuple(latent.get("batch_index", range(len(source)))),
        base_family=family,
        sigmas=tuple(sigmas[: depth + 1].tolist()),
        kept=(True,) * len(source),
        guidance="embedding" if guider.embedding else "cfg",
        redenoised_with=sibling and weights_checksum(sibling),
        **options,
    )


def weights_checksum(model: ModelPatcher) -> str:
    """What tells a model from others of its shape: a checksum over its vectors.

    LoRAs on it stay out of it.
    """
    digest = hashlib.sha256()
    for weight in model.model.diffusion_model.parameters():
        if weight.ndim == 1:
            digest.update(weight.detach()[:32].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def fixed_empty(model: ModelPatcher, latent: dict) -> Tensor:
    """The samples of a LATENT, an empty one brought into the model's shape as the samplers do it."""
    ratios = {name: latent.get(name) for name in ("downscale_ratio_spacial", "downscale_ratio_temporal")}
    fix = comfy.sample.fix_empty_latent_channels
    return fix(model, latent["samples"], **known(fix, **ratios))


GUIDANCE = {"min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}
REDENOISE_MODEL = io.Model.Input(
    "redenoise_model",
    optional=True,
    tooltip="Only for a distilled model (Turbo, schnell): the undistilled model that it was made of, which re-denoises "
    "in its place.",
)


class NPNetRedenoisePair(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetRedenoisePair",
            display_name="Re-denoise Pair",
            category="NPNet",
            description="Makes the target noise of a source noise: one denoising step with strong guidance, one "
            "inversion step back with weak guidance. Sample both to see whether the target suits the prompt better.",
            **search_aliases("re-denoising, ddim inversion, unsampling, noise pair, golden noise, 反演"),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model that both noises will be sampled with."),
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="What guidance moves away from; the paper's SDXL pairs were made with zeroed ones.",
                ),
                io.Noise.Input("noise", tooltip="The source noise, usually RandomNoise."),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="The sampling schedule; its first two values are the step that is taken, or more with a "
                    "greater depth. The paper collects at 10 steps (4 for few-step models): fewer steps make a larger "
                    "change.",
                ),
                io.Latent.Input("latent_image", tooltip="The latent that both noises will be sampled with."),
                io.Float.Input("cfg", default=5.5, tooltip="Guidance of the denoising step.", **GUIDANCE),
                io.Float.Input("inversion_cfg", default=1.0, tooltip="Guidance of the inversion step.", **GUIDANCE),
                io.Int.Input(
                    "rounds",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="How often the result is re-denoised again.",
                    **known(io.Int.Input, advanced=True),
                ),
                io.Combo.Input(
                    "inversion",
                    options=list(INVERSIONS),
                    default="exact",
                    tooltip=INVERSIONS_HELP,
                    **known(io.Combo.Input, advanced=True),
                ),
                io.Int.Input(
                    "depth",
                    default=1,
                    min=1,
                    max=100,
                    optional=True,  # graphs that were saved before there was a depth run as they did
                    tooltip="How many steps are taken down and back: 1 in the paper; with fixed-point, 2 or 3 make "
                    "targets that won more often in our measurements, at guidance 1 only.",
                    **known(io.Int.Input, advanced=True),
                ),
                REDENOISE_MODEL,
            ],
            outputs=[
                io.Noise.Output(display_name="source", tooltip="The source noise, for SamplerCustomAdvanced."),
                io.Noise.Output(display_name="target", tooltip="The target noise, for SamplerCustomAdvanced."),
                PairSocket.Output(display_name="pair", tooltip="Both, for HPS Filter and Save Noise Pair."),
            ],
        )

    @classmethod
    def execute(
        cls, model, positive, negative, noise, sigmas, latent_image, depth=1, redenoise_model=None, **options
    ) -> io.NodeOutput:
        options["depth"] = depth
        pair = redenoise_pair(model, positive, negative, noise, sigmas, latent_image, options, redenoise_model)
        return io.NodeOutput(FixedNoise(pair.source, pair.seed), FixedNoise(pair.target, pair.seed), pair)
