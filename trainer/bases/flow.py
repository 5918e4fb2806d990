"""What the flow families share: noise levels from diffusers' flow scheduler, shifted as the pipeline shifts them."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from itertools import pairwise

import torch

from npnet_core.errors import InputError
from npnet_core.redenoising import Level
from trainer.bases.base import Base
from trainer.bases.schedules import Schedule

# name: diffusers' class. A sampler says how a step is taken; where steps lie, the model says.
FLOW_SAMPLERS = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
    "dpm-solver-multistep": "DPMSolverMultistepScheduler",
}

FLOW_SCHEDULE = (
    "num_train_timesteps",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "invert_sigmas",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "time_shift_type",
)


class Flow(Base):
    """A base model that predicts the velocity eps - denoised (rectified flow)."""

    half = "bf16"  # in which these models are published; fp16 has not its range
    prediction = "flow_prediction"
    takes_network_files = True

    @property
    def network(self) -> torch.nn.Module:
        return self.pipe.transformer

    @property
    def noise_schedule(self) -> dict:
        """How the folder's scheduler shifts its sigmas."""
        config = self.pipe.scheduler.config
        return {name: config[name] for name in FLOW_SCHEDULE if name in config}

    def check(self) -> None:
        scheduler = self.pipe.scheduler
        if type(scheduler).__name__ != FLOW_SAMPLERS["euler"] or scheduler.config.get("stochastic_sampling"):
            raise InputError(
                f"{self.source} uses {type(scheduler).__name__}, but only {FLOW_SAMPLERS['euler']} without "
                "stochastic_sampling says where the noise levels of a flow model lie: choose another base model."
            )

    @property
    @abstractmethod
    def patch(self) -> int:
        """Latent pixels per side of the network's tokens."""

    @property
    def multiple(self) -> int:
        return self.pixels * self.patch

    @property
    def size(self) -> int:
        return self.pipe.vae.config.sample_size

    def shift(self, scheduler, shape: tuple[int, int, int]) -> float:
        """mu, the dynamic shift of a scheduler for latents (C, h, w): linear in the number of the network's tokens."""
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        tokens, config = (shape[1] // self.patch) * (shape[2] // self.patch), scheduler.config
        lengths = config.base_image_seq_len, config.max_image_seq_len
        return calculate_shift(tokens, *lengths, config.base_shift, config.max_shift)

    @abstractmethod
    def set_timesteps(self, scheduler, steps: int, shape: tuple[int, int, int]) -> None:
        """``scheduler.set_timesteps`` on ``self.device`` with what the pipeline passes for latents (C, h, w)."""

    def scheduler(self, schedule: Schedule, shape: tuple[int, int, int]):
        """On the sigmas of the model's own Euler scheduler, whatever the sampler: diffusers' Heun scheduler shifts them
        twice and its DPM-Solver begins below 1.
        """
        import diffusers

        if schedule.sampler not in FLOW_SAMPLERS:
            raise InputError(
                f"Sampler {schedule.sampler} does not exist for flow models such as {self.source}: use one of "
                f"{', '.join(FLOW_SAMPLERS)}."
            )
        if schedule.spacing is not None:
            raise InputError(
                f"Spacing {schedule.spacing} does not exist for flow models such as {self.source}: leave it out, their "
                "shift says where the steps lie."
            )
        euler = diffusers.FlowMatchEulerDiscreteScheduler(**self.noise_schedule)
        self.set_timesteps(euler, schedule.steps, shape)
        euler.set_begin_index(0)
        sigmas, timesteps = euler.sigmas, euler.timesteps
        if not all(a > b for a, b in pairwise(sigmas.tolist())):
            values = ", ".join(f"{sigma:.4g}" for sigma in sigmas.tolist())
            raise InputError(
                f"The sigmas of {self.source} at {schedule.steps} steps do not fall ({values}): mend its "
                "scheduler_config.json, or choose another base model."
            )
        if schedule.sampler == "euler":
            return euler
        settings = {"num_train_timesteps": euler.config.num_train_timesteps}
        if schedule.sampler == "heun":  # which predicts again where each step but the last has led
            sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
            timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
        else:
            settings |= {"use_flow_sigmas": True, "prediction_type": self.prediction}
        scheduler = getattr(diffusers, FLOW_SAMPLERS[schedule.sampler])(**settings)
        scheduler.set_timesteps(schedule.steps, device=self.device)
        scheduler.sigmas, scheduler.timesteps = sigmas, timesteps
        scheduler.set_begin_index(0)
        return scheduler

    def levels(self, scheduler) -> list[Level]:
        sigmas, timesteps = (values.unique_consecutive().tolist() for values in (scheduler.sigmas, scheduler.timesteps))
        return [dataclasses.replace(Level.flow(sigma), t=t) for sigma, t in zip(sigmas, timesteps, strict=False)]
