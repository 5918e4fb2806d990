"""Re-denoise Pair: a noise → what re-denoising makes of it (Stage I of the paper), through ComfyUI's sampling."""

from __future__ import annotations

from dataclasses import dataclass, field

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from torch import Tensor

from ..npnet_core.errors import InputError
from ..npnet_core.redenoising import INVERSIONS, INVERSIONS_HELP, Level, check_levels, evaluations, redenoise
from .conditioning import base_family, start_at
from .golden import WRAPPER_KEY
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
        source, target: [B, C, H, W] each, unit variance.
        seed: the source's.
        items: [B], which noise of the seed's stream each one is.
        base_family: of the prompt, as in :class:`npnet_core.config.Config`.
        sigmas: the noise levels that it was made between, noisiest first, one more than steps were taken down.
        cfg, inversion_cfg, rounds, inversion: as in :func:`npnet_core.redenoising.redenoise`.
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
    scores: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def noise_levels(model_sampling, sigmas: Tensor, inversion: str, depth: int) -> list[Level]:
    """The levels that re-denoising needs: the first sigmas, and for ``released`` the level one step further down.

    Raises:
        InputError: as :func:`npnet_core.redenoising.check_levels`.
    """
    level = Level.flow if isinstance(model_sampling, comfy.model_sampling.CONST) else Level.exploding
    levels = [level(float(sigma)) for sigma in sigmas[: depth + 1]]
    if inversion != "released":
        check_levels(levels, inversion, depth)
    else:
        check_levels(levels)
        check_levels([*levels, Level.exploding(0.0)], inversion, depth)  # a flow model has no timesteps to count
        first, second = (float(model_sampling.timestep(sigma)) for sigma in sigmas[:2])
        if 2 * second - first < 0:
            raise InputError(
                f"Inversion 'released' needs a third timestep, but {first:g} and {second:g} leave none below: use a "
                "schedule of more steps, or 'exact'."
            )
        levels.append(level(float(model_sampling.sigma(torch.tensor(2 * second - first)))))
    return levels


def noise_for(x: Tensor, model_sampling, sigma: Tensor, latent_image: Tensor, max_denoise: bool) -> Tensor:
    """The noise from which sampling starts at exactly x.

    ``noise_scaling`` is affine in the noise, so probing it with 0 and 1 is enough: x = a·noise + b.

    Raises:
        InputError: for a model whose start does not depend on the noise.
    """

    def start(noise: Tensor) -> Tensor:
        return model_sampling.noise_scaling(sigma, noise, latent_image, max_denoise)

    b = start(torch.zeros_like(x))
    a = start(torch.ones_like(x)) - b
    if not (a.abs() > 1e-6).all():
        raise InputError(
            "This model does not start from the noise it is given, so no noise starts it at a re-denoised latent: use "
            "an ordinary text-to-image model."
        )
    return (x - b) / a


def redenoise_pair(
    model: ModelPatcher, positive, negative, noise, sigmas: Tensor, latent: dict, depth: int, options: dict
) -> NoisePair:
    """Re-denoise through a guider, so that LoRAs, ControlNets, areas, masks and hooks act as they do in sampling.

    Args:
        noise: a NOISE.
        sigmas: a schedule, of which the first values are read, one more than ``depth``.
        latent: a LATENT.
        depth: how many steps are taken down, and as many back.
        options: cfg, inversion_cfg, rounds and inversion of :func:`npnet_core.redenoising.redenoise`.
    """
    model_sampling = model.get_model_object("model_sampling")
    sigmas = sigmas[: depth + 1]
    levels = noise_levels(model_sampling, sigmas, options["inversion"], depth)
    model = model.clone()
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)  # the source is the noise as it came
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)

    total = evaluations(options["rounds"], options["inversion"], depth)
    preview = latent_preview.prepare_callback(model, total)
    result = {}

    def sampler_function(model_k, x, sigmas, extra_args=None, callback=None, disable=None):
        done = 0

        def denoise(x: Tensor, level: Level, cfg: float) -> Tensor:
            nonlocal done
            comfy.model_management.throw_exception_if_processing_interrupted()
            guider.set_cfg(cfg)
            denoised = model_k(x, x.new_full((len(x),), level.t), **extra_args)
            preview(done, denoised, x, total)
            done += 1
            return denoised

        x0 = model_k.latent_image
        target = redenoise(denoise, x.float(), levels, depth=depth, **options).target
        max_denoise = sampler.max_denoise(guider, sigmas)
        result["target"] = noise_for(target, model_sampling, sigmas[0], x0, max_denoise).cpu()
        return target

    sampler = comfy.samplers.KSAMPLER(sampler_function)
    samples = fixed_empty(model, latent)
    family = base_family(positive, start_at(model_sampling, sigmas, samples.shape[2:]))
    source = noise.generate_noise({**latent, "samples": samples})
    if not source.any():
        raise InputError("All-zero noise came, which has no better noise beside it: connect RandomNoise.")
    guider.sample(
        source,
        samples,
        sampler,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=noise.seed,
    )
    return NoisePair(
        source=source,
        target=result["target"].to(source.dtype),
        seed=noise.seed,
        items=tuple(latent.get("batch_index", range(len(source)))),
        base_family=family,
        sigmas=tuple(sigmas.tolist()),
        kept=(True,) * len(source),
        **options,
    )


def fixed_empty(model: ModelPatcher, latent: dict) -> Tensor:
    """The samples of a LATENT, an empty one brought into the model's shape as the samplers do it."""
    ratios = {name: latent.get(name) for name in ("downscale_ratio_spacial", "downscale_ratio_temporal")}
    fix = comfy.sample.fix_empty_latent_channels
    return fix(model, latent["samples"], **known(fix, **ratios))


class NPNetRedenoisePair(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        guidance = {"min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}
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
                io.Float.Input("cfg", default=5.5, tooltip="Guidance of the denoising step.", **guidance),
                io.Float.Input("inversion_cfg", default=1.0, tooltip="Guidance of the inversion step.", **guidance),
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
            ],
            outputs=[
                io.Noise.Output(display_name="source", tooltip="The source noise, for SamplerCustomAdvanced."),
                io.Noise.Output(display_name="target", tooltip="The target noise, for SamplerCustomAdvanced."),
                PairSocket.Output(display_name="pair", tooltip="Both, for HPS Filter and Save Noise Pair."),
            ],
        )

    @classmethod
    def execute(cls, model, positive, negative, noise, sigmas, latent_image, depth=1, **options) -> io.NodeOutput:
        pair = redenoise_pair(model, positive, negative, noise, sigmas, latent_image, depth, options)
        return io.NodeOutput(FixedNoise(pair.source, pair.seed), FixedNoise(pair.target, pair.seed), pair)
