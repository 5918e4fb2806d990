"""What the families that predict eps or v share: noise levels from the schedule they were trained on."""

from __future__ import annotations

import inspect
from typing import ClassVar

from torch import Tensor

from npnet_core.errors import InputError
from npnet_core.redenoising import Level
from trainer.bases.base import Base
from trainer.bases.schedules import SAMPLERS, Schedule

NOISE_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "set_alpha_to_one",
    "timestep_spacing",
    "steps_offset",
)

NOTHING = 1e-6  # alphas_cumprod of pure noise: 0 or, where diffusers avoids that, 2**-24; SD ends at 0.005


class Diffusion(Base):
    """A base model whose levels are ``alphas_cumprod`` at whole timesteps."""

    align_your_steps: ClassVar[str | None] = None  # whose ten steps, among diffusers' AysSchedules

    @property
    def prediction(self) -> str:
        """What the network predicts: ``epsilon`` or ``v_prediction``."""
        return self.pipe.scheduler.config.prediction_type

    @property
    def noise_schedule(self) -> dict:
        """What the network was trained on, and where its steps lie."""
        config = self.pipe.scheduler.config
        return {name: config[name] for name in NOISE_SCHEDULE if name in config}

    def check(self) -> None:
        scheduler = self.pipe.scheduler
        flow = scheduler.config.get("use_flow_sigmas")
        if flow or not hasattr(scheduler, "alphas_cumprod") or self.prediction not in ("epsilon", "v_prediction"):
            raise InputError(
                f"{self.source} uses {type(scheduler).__name__} with prediction type "
                f"{scheduler.config.get('prediction_type')}, but only models that predict epsilon or v can be used: "
                "choose another base model."
            )
        if self.pipe.vae.config.get("latents_mean") is not None:  # Playground 2.5's
            raise InputError(
                f"{self.source} has an autoencoder that shifts and scales each channel (latents_mean), which is not "
                "supported here: choose another base model."
            )

    def scheduler(self, schedule: Schedule, shape: tuple[int, int, int]):
        import diffusers

        name, settings = SAMPLERS[schedule.sampler]
        cls = getattr(diffusers, name)
        known = inspect.signature(cls.__init__).parameters
        config = {"set_alpha_to_one": False, **self.noise_schedule, **settings}
        if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in known:
            raise InputError(
                f"Sampler {schedule.sampler} cannot start from pure noise, as {self.source} was trained to: use ddim."
            )
        if schedule.spacing not in (None, "ays"):
            config["timestep_spacing"] = schedule.spacing
        scheduler = cls(**{key: value for key, value in config.items() if key in known})
        if schedule.spacing == "ays":
            scheduler.set_timesteps(timesteps=self._ays(schedule, scheduler), device=self.device)
        else:
            try:
                scheduler.set_timesteps(schedule.steps, device=self.device)
            except ValueError as error:
                raise InputError(f"Sampler {schedule.sampler} cannot take {schedule.steps} steps: {error}") from error
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        first = scheduler.timesteps[0].item()
        if self.prediction == "epsilon" and _alpha_cumprod(scheduler.alphas_cumprod, first) < NOTHING:
            raise InputError(
                f"{self.source} predicts the noise (epsilon), which says nothing of the image where there is nothing "
                f"but noise, as at the first step of {schedule.sampler} with this spacing: begin later with another "
                "spacing (--spacing leading), or choose another base model."
            )
        return scheduler

    def _ays(self, schedule: Schedule, scheduler) -> list[int]:
        """The ten timesteps of Align Your Steps."""
        from diffusers.schedulers import AysSchedules

        known = "timesteps" in inspect.signature(scheduler.set_timesteps).parameters
        if self.align_your_steps is None or not known:
            raise InputError(
                f"There is no ays spacing for a {self.family} model with sampler {schedule.sampler}: it exists for "
                "sdxl and sd1 with dpm-solver-multistep, euler, heun, ddpm or lcm."
            )
        return AysSchedules[self.align_your_steps]

    def levels(self, scheduler) -> list[Level]:
        # Second-order samplers list each step's intermediate evaluation too, PNDM its second step twice.
        timesteps = scheduler.timesteps[:: scheduler.order].unique_consecutive().tolist()
        return [Level.diffusion(_alpha_cumprod(scheduler.alphas_cumprod, t), t) for t in timesteps]


def _alpha_cumprod(alphas_cumprod: Tensor, t: float) -> float:
    """alphas_cumprod[t]; between two timesteps sigma / alpha is linear, as the schedulers take it."""
    whole, rest = int(t), t - int(t)
    if rest == 0:
        return alphas_cumprod[whole].item()
    low, high = ((1 / alphas_cumprod[i].item() - 1) ** 0.5 for i in (whole, whole + 1))
    return 1 / (1 + (low + rest * (high - low)) ** 2)
