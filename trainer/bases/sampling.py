"""One prediction and many: guidance, sampling and decoding with a base model of any family."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from npnet_core.errors import InputError
from npnet_core.redenoising import Denoiser, Level, denoised_from, eps_from, guide
from trainer.bases.base import Base, first_draw, latent_shape
from trainer.bases.memory import take_turn
from trainer.bases.prompts import Prompts, concatenated
from trainer.bases.schedules import STOCHASTIC, Schedule


def levels(base: Base, schedule: Schedule, shape: tuple[int, int, int] | None = None) -> list[Level]:
    """The noise level of each step, noisiest first: what :func:`npnet_core.redenoising.redenoise` goes down and up on.

    Args:
        shape: (C, h, w) of the latents, on which a flow model's levels may depend; by default the network's own.
    """
    return base.levels(base.scheduler(schedule, shape or latent_shape(base)))


def evaluations(base: Base, schedule: Schedule) -> int:
    """Guided predictions that one image costs (Heun and KDPM2: 2n - 1, PNDM: n + 1)."""
    return len(base.scheduler(schedule, latent_shape(base)).timesteps)


def branches(base: Base, cfg: float) -> int:
    """Rows of the network that one guided prediction costs: 1 at cfg 1 or where cfg is no second branch, else 2."""
    return 2 if base.guidance == "cfg" and cfg != 1 else 1


def check_guidance(base: Base, cfg: float) -> None:
    """Raise InputError for a guidance scale other than 1 of a model that has its own built in."""
    if base.guidance == "none" and cfg != 1:
        raise InputError(
            f"Guidance {cfg:g} was asked for and {base.source} has its guidance built in: use 1, or if it has none "
            "built in, the --preset of its base model."
        )


def shares_first(base: Base, schedule: Schedule) -> bool:
    """Whether sampling begins with the prediction at (noise, ``levels(…)[0]``), as ``first_denoised`` needs it.

    Not so where a scheduler starts from sigma · noise instead of √(1 + sigma²) · noise (trailing Euler, for one).
    """
    return _starts_at_noise(base.scheduler(schedule, latent_shape(base)))


def _starts_at_noise(scheduler) -> bool:
    one, first = torch.ones(1, device=scheduler.timesteps.device), scheduler.timesteps[0]
    return abs(_scaled(scheduler, one * _initial_scale(scheduler), first).item() - 1) < 1e-6


def _initial_scale(scheduler) -> float:
    return getattr(scheduler, "init_noise_sigma", 1.0)  # diffusers' schedulers for flow models scale nothing


def _scaled(scheduler, x: Tensor, t: Tensor) -> Tensor:
    """What the network sees of the scheduler's latents."""
    return scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x


@torch.no_grad()
def predict(base: Base, x: Tensor, t: float, prompts: Prompts, cfg: float, control: Tensor | None = None) -> Tensor:
    """The network's guided raw output (:attr:`Base.prediction`), [B, C, h, w], fp32.

    Args:
        x: [B, C, h, w] in the variance-preserving form, on ``base.device``.
        t: timestep.
        prompts: B of them.
        cfg: guidance scale; 1 evaluates one branch.
        control: [B or 1, 3, H, W] in 0..1, the ControlNet's picture.

    Raises:
        InputError: for a control picture without a ControlNet.
    """
    return _predict(base, x, t, prompts, cfg, control)


def _predict(base: Base, x: Tensor, t: float, prompts: Prompts, cfg: float, control: Tensor | None) -> Tensor:
    if len(prompts) != len(x):
        raise ValueError(f"{len(x)} latents and {len(prompts)} prompts: give one prompt per latent.")
    if control is not None and base.controlnet is None:
        raise InputError(f"A control picture was given and {base.source} was loaded without a ControlNet: name one.")
    take_turn(base, "network")
    inputs, rows = prompts.cond, x.to(base.dtype)
    guided = branches(base, cfg) == 2
    if guided:
        uncond = {name: value.expand(len(x), *value.shape[1:]) for name, value in prompts.uncond.items()}
        inputs = concatenated([uncond, prompts.cond])
        rows = torch.cat([rows, rows])
    output = base.run_network(rows, torch.tensor(t, device=x.device), inputs, cfg, control).float()
    return guide(*output.chunk(2), cfg) if guided else output


def denoiser(base: Base, prompts: Prompts, control: Tensor | None = None) -> Denoiser:
    """The ``denoise(x, level, cfg)`` of :mod:`npnet_core.redenoising`, for B prompts and latents on ``base.device``."""

    def denoise(x: Tensor, level: Level, cfg: float) -> Tensor:
        return denoised_from(predict(base, x, level.t, prompts, cfg, control), x, level, base.prediction)

    return denoise


@torch.no_grad()
def sample(
    base: Base,
    noise: Tensor,
    prompts: Prompts,
    schedule: Schedule,
    cfg: float | Sequence[float],
    *,
    seeds: Sequence[int] | None = None,
    first_denoised: Tensor | None = None,
    control: Tensor | None = None,
) -> Tensor:
    """Denoise: latents [B, C, h, w], fp32, on ``base.device``.

    Args:
        noise: [B, C, h, w], unit variance.
        prompts: B of them.
        cfg: guidance scale, or one for each of the schedule's :func:`evaluations`.
        seeds: one per image, needed by the :data:`STOCHASTIC` samplers; each image's stream goes on behind the draw
            that :func:`initial_noise` makes from the seed, as in diffusers' pipelines: no image depends on its batch.
        first_denoised: [K ≤ B, C, h, w], what ``denoiser(…)(noise, levels(…)[0], cfg)`` said for the first K images
            already: only the others are evaluated at the first step.
        control: as for :func:`predict`.

    Raises:
        InputError: a stochastic sampler got no seeds.
        ValueError: ``first_denoised`` with a schedule that does not start there (:func:`shares_first`), another number
            of guidance scales than there are evaluations.
    """
    return _sample(base, noise, prompts, schedule, cfg, seeds, first_denoised, control)


def generate(
    base: Base,
    noise: Tensor,
    prompts: Prompts,
    schedule: Schedule,
    cfg: float | Sequence[float],
    *,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """What :func:`sample` and :func:`decode` give, with a gradient with respect to the noise: images [B, H, W, 3] in
    0..1, fp32, where the autoencoder is, decoded at once. Arguments as for :func:`sample`, which says what is raised.
    """
    take_turn(base, "network", "vae")  # a gradient goes through both
    latents = _sample(base, noise, prompts, schedule, cfg, seeds, None, None)
    return _images(base.decode_latents(latents).float())


def _sample(
    base: Base,
    noise: Tensor,
    prompts: Prompts,
    schedule: Schedule,
    cfg: float | Sequence[float],
    seeds: Sequence[int] | None,
    first_denoised: Tensor | None,
    control: Tensor | None,
) -> Tensor:
    scheduler = base.scheduler(schedule, tuple(noise.shape[1:]))
    scales = [cfg] * len(scheduler.timesteps) if isinstance(cfg, float | int) else cfg
    if first_denoised is not None and not _starts_at_noise(scheduler):
        raise ValueError(f"{schedule} does not start with a prediction at the noise itself: sample it without.")
    x = noise.to(base.device, torch.float32) * _initial_scale(scheduler)
    extra = {}
    if schedule.sampler in STOCHASTIC:
        if seeds is None:
            raise InputError(f"Sampler {schedule.sampler} draws noise at every step: give one seed per image.")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for generator in generators:
            first_draw(generator, x.shape[1:])
        extra["generator"] = generators
    for i, (t, scale) in enumerate(zip(scheduler.timesteps, scales, strict=True)):
        scaled = _scaled(scheduler, x, t)
        known = 0 if i > 0 or first_denoised is None else len(first_denoised)
        predictions = []
        if known > 0:
            first = base.levels(scheduler)[0]
            predictions.append(_prediction_from(first_denoised, scaled[:known], first, base.prediction))
        if known < len(x):
            shown = control if control is None or len(control) == 1 else control[known:]
            predictions.append(_predict(base, scaled[known:], t.item(), prompts[known:], scale, shown))
        x = scheduler.step(torch.cat(predictions), t, x, return_dict=False, **extra)[0]
    return x


def _prediction_from(denoised: Tensor, x: Tensor, level: Level, kind: str) -> Tensor:
    """The inverse of :func:`npnet_core.redenoising.denoised_from`."""
    eps = eps_from(x, denoised, level)
    if kind == "epsilon":
        return eps
    return eps - denoised if kind == "flow_prediction" else level.alpha * eps - level.sigma * denoised


@torch.no_grad()
def decode(base: Base, latents: Tensor, *, batch: int = 4) -> Tensor:
    """Images [B, H, W, 3] in 0..1, fp32, on the CPU, decoded ``batch`` at a time where the autoencoder is."""
    take_turn(base, "vae")
    return torch.cat([_images(base.decode_latents(chunk).float().cpu()) for chunk in latents.split(batch)])


def encode_images(base: Base, images: Tensor, *, batch: int = 4) -> Tensor:
    """The way back: images [B, H, W, 3] in 0..1 → their likeliest latents [B, C, h, w], fp32, on the CPU."""
    take_turn(base, "vae")
    pictures = 2 * images.movedim(-1, 1) - 1
    return torch.cat([base.encode_images(chunk).float().cpu() for chunk in pictures.split(batch)])


def _images(decoded: Tensor) -> Tensor:
    """[B, 3, H, W] in -1..1 → [B, H, W, 3] in 0..1."""
    return (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
