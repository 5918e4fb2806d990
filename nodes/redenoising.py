"""Re-denoising through ComfyUI's sampling, so that LoRAs, ControlNets, areas, masks and hooks act as they do there."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..npnet_core.errors import InputError
from ..npnet_core.redenoising import Level, check_levels, redenoise
from .start_patch import unpatched

DISTILLED = (
    "re-denoising could fold into the noise: connect the undistilled model that it was made of as redenoise_model"
)


class RedenoisingGuider(comfy.samplers.CFGGuider):
    """A guider of two guidances, one for the way down and one for the way back. ``cfg`` says which predicts now.

    Where the network is told its guidance, both go into it and a prediction is one branch; elsewhere they are
    classifier-free guidance.

    Args:
        model: the MODEL that predicts; patches that change the start of sampling are left out.
        positive: a CONDITIONING, or what a guider keeps of it.
        negative: the same; None where there is none.
        cfg, inversion_cfg: the guidances.

    Raises:
        InputError: where classifier-free guidance is needed and there is no negative prompt.
    """

    def __init__(
        self, model: ModelPatcher, positive: list, negative: list | None, cfg: float, inversion_cfg: float
    ) -> None:
        super().__init__(unpatched(model))
        positive = as_conditioning(positive)
        self.embedding = embeds_guidance(model, positive)
        if self.embedding:
            told = (
                [[embeds, {**options, "guidance": g}] for embeds, options in positive] for g in (cfg, inversion_cfg)
            )
            self.inner_set_conds(dict(zip((str(cfg), str(inversion_cfg)), told, strict=True)))
        elif negative is not None:
            self.inner_set_conds({"positive": positive, "negative": as_conditioning(negative)})
        elif cfg == inversion_cfg == 1:
            self.inner_set_conds({"positive": positive})
        else:
            raise InputError(
                f"Re-denoising with guidance {cfg:g} and {inversion_cfg:g} needs a negative prompt and the guider has "
                "none: sample with KSampler or CFGGuider, or with a model that is told its guidance (FLUX.1-dev)."
            )

    @property
    def is_flow(self) -> bool:
        return isinstance(self.model_patcher.get_model_object("model_sampling"), comfy.model_sampling.CONST)

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006  as ComfyUI calls it
        if not self.embedding:
            return super().predict_noise(x, timestep, model_options, seed)
        conds = self.conds[str(self.cfg)]
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, None, conds, 1.0, model_options=model_options, seed=seed
        )


def as_conditioning(conds: list) -> list:
    """What a guider keeps, ``[{"cross_attn": tensor, …}, …]``, as a CONDITIONING again; a CONDITIONING as it is."""
    return [[c.get("cross_attn"), c] if isinstance(c, dict) else c for c in conds]


def embeds_guidance(model: ModelPatcher, positive: list) -> bool:
    """Whether a model's network is told its guidance, unless the prompt switches that off (FluxDisableGuidance)."""
    told = model.model.model_config.unet_config.get("guidance_embed", False)
    return bool(told) and all(options.get("guidance", 1.0) is not None for _, options in positive)


def redenoiser(model: ModelPatcher, sibling: ModelPatcher | None, family: str) -> ModelPatcher:
    """The model that re-denoises for another: its undistilled sibling if it has one, else itself.

    Args:
        family: of the prompt and the model, see :func:`.conditioning.base_family`.

    Raises:
        InputError: for a sibling of another kind; for a model that is known as distilled and has none.
    """
    if sibling is None:
        if family == "flux" and not model.model.model_config.unet_config.get("guidance_embed", False):
            raise InputError(f"This is FLUX.1-schnell, a distilled model without guidance that {DISTILLED}.")
        return model
    if kind(sibling) != kind(model):
        names = (type(each.model.model_config).__name__ for each in (sibling, model))
        raise InputError(
            "A redenoise_model of kind {} came for a model of kind {}, one with the same latents and prompts was "
            "expected: connect the undistilled model that this one was made of.".format(*names)
        )
    return sibling


def kind(model: ModelPatcher) -> tuple:
    """What two models have in common of which one may re-denoise for the other."""
    config, sampling = model.model.model_config.unet_config, model.get_model_object("model_sampling")
    widths = ("context_dim", "context_in_dim", "cap_feat_dim")  # of prompts, as UNets, FLUX and Lumina call them
    return (
        config.get("image_model"),
        *(config.get(width) for width in widths),
        type(model.get_model_object("latent_format")),
        isinstance(sampling, comfy.model_sampling.CONST),
    )


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


def redenoised(
    guider: RedenoisingGuider,
    source: Tensor,
    latent_image: Tensor,
    sigmas: Tensor,
    options: dict,
    progress: Callable[[int, Tensor, Tensor], None],
    **sampling,
) -> Tensor:
    """The noise from which sampling starts at what re-denoising makes of the start from another noise.

    Args:
        source: noise, as the model's sampler is given it.
        latent_image: what it is put on, of the same shape.
        sigmas: a schedule, of which the first values are read, one more than the depth.
        options: cfg, inversion_cfg, rounds, inversion and depth of :func:`npnet_core.redenoising.redenoise`.
        progress: told how many predictions were made before, the denoised latent and x.
        sampling: denoise_mask, disable_pbar and seed of ``CFGGuider.sample``.

    Returns:
        Like ``source``, on the CPU.
    """
    model_sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = sigmas[: options["depth"] + 1]
    levels = noise_levels(model_sampling, sigmas, options["inversion"], options["depth"])
    result = {}

    def sampler_function(model_k, x, sigmas, extra_args=None, callback=None, disable=None):
        done = 0

        def denoise(x: Tensor, level: Level, cfg: float) -> Tensor:
            nonlocal done
            comfy.model_management.throw_exception_if_processing_interrupted()
            guider.set_cfg(cfg)
            denoised = model_k(x, x.new_full((len(x),), level.t), **extra_args)
            progress(done, denoised, x)
            done += 1
            return denoised

        x0 = model_k.latent_image
        target = redenoise(denoise, x.float(), levels, **options).target
        max_denoise = sampler.max_denoise(guider, sigmas)
        result["noise"] = noise_for(target, model_sampling, sigmas[0], x0, max_denoise).cpu()
        return target

    sampler = comfy.samplers.KSAMPLER(sampler_function)
    guider.sample(source, latent_image, sampler, sigmas, **sampling)
    return result["noise"].to(source.dtype)
