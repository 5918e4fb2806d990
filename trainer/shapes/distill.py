"""A text-to-image model of the shapes world → one that makes its pictures in one or two steps, guidance built in.

Consistency distillation: what denoises is to send every point of a trajectory of the probability-flow ODE to the
trajectory's end in one step (Song et al., arXiv 2303.01469), and the trajectories are guided ones (latent consistency
models, arXiv 2310.04378). These teachers are so small that they go to the end themselves: nothing is learnt from the
student's own guess of it, so there is no second network and no schedule of step lengths.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import trange

from npnet_core.redenoising import Level, ddim, denoised_from, guide
from trainer import bases
from trainer.bases import Base, Prompts, Schedule
from trainer.shapes.flow_batches import velocity

STEPS = 8  # of a trajectory, a multiple of the student's
CFG = 4.0  # of a trajectory
STUDENT_STEPS = 8  # of the optimizer, per batch of new trajectories
KEPT = 16  # batches of trajectories that are learnt from
FIRST = 0.5  # share of the points that are trajectories' beginnings, where the one-step model is used
HUBER = 0.03  # below this distance, in standard deviations of a latent, the loss is quadratic
DECAY = 0.998  # of the weights' moving average, which is the student


class Trajectories(NamedTuple):
    """B of them, with N points each."""

    points: Tensor  # [N, B, C, h, w], from the noise on
    ends: Tensor  # [B, C, h, w], clean latents
    captions: Tensor  # [B], numbers


def distil(
    teacher: Path,
    out: Path,
    captions: Sequence[str],
    *,
    rounds: int = 400,
    batch: int = 64,
    lr: float = 5e-4,
    seconds: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Path:
    """Write a folder like the teacher's, whose ``model_index.json`` says ``_is_distilled``; returns it.

    Args:
        teacher: a pipeline folder.
        captions: all that there are.
        rounds: batches of new trajectories; each is followed by :data:`STUDENT_STEPS` steps of the optimizer.
        batch: trajectories of a round and points of a step.
        seconds: end earlier; the learning rate then falls with the time.
    """
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    teacher_base, student = (bases.load_base(teacher, device=device, precision="fp32") for _ in range(2))
    levels = levels_of(teacher_base)
    prompts = bases.encode(teacher_base, captions)
    for base in (teacher_base, student):
        base.network.to(memory_format=torch.channels_last)  # a sixth quicker on a CPU
    network = student.network.requires_grad_(True)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.0)
    pool: Trajectories | None = None
    begun, progress = time.monotonic(), 0.0
    with trange(rounds, desc="distillation", unit="round", smoothing=0.05) as bar:
        for i in bar:
            chosen = torch.randint(len(captions), (batch,), generator=generator, device=device)
            pool = pooled(pool, trajectories(teacher_base, levels, prompts, chosen, generator))
            total = 0.0
            for _ in range(STUDENT_STEPS):
                loss = inconsistency(student, levels, prompts, pool, batch, generator)
                for group in optimizer.param_groups:
                    group["lr"] = lr * min(1.0, progress / 0.02 + 0.02, (1 - progress) / 0.5)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                with torch.no_grad():
                    parameters = list(network.parameters())
                    torch._foreach_lerp_(list(average.parameters()), parameters, 1 - min(DECAY, (1 + i) / (10 + i)))
                total += loss.detach()
            bar.set_postfix_str(f"loss {total / STUDENT_STEPS:.4f}", refresh=False)
            progress = (i + 1) / rounds
            if seconds is not None:
                progress = max(progress, (time.monotonic() - begun) / seconds)
            if progress >= 1:
                break
    network.load_state_dict(average.state_dict())
    return save(student, out)


def save(student: Base, out: Path) -> Path:
    """Write the folder in fp16. Of a setting that a pipeline does not know diffusers warns, unless it is private."""
    pipe = student.pipe
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.to("cpu", torch.float16)
    pipe.register_to_config(_is_distilled=True)
    pipe.save_pretrained(out)
    return out


def levels_of(base: Base) -> list[Level]:
    """Of a trajectory's points, from pure noise on; among them those of fewer steps that divide :data:`STEPS`."""
    flow = base.prediction == "flow_prediction"
    schedule = Schedule("euler", STEPS) if flow else Schedule("ddim", STEPS, "trailing")
    return bases.levels(base, schedule)


@torch.no_grad()
def trajectories(
    teacher: Base, levels: Sequence[Level], prompts: Prompts, captions: Tensor, generator: torch.Generator
) -> Trajectories:
    """New ones from fresh noise, for these numbers [B] of captions, by DDIM's steps, which are Euler's."""
    told = prompts[captions]
    shape = (len(captions), *bases.latent_shape(teacher))
    x = torch.randn(shape, generator=generator, device=captions.device)
    points = []
    for level, following in zip(levels, [*levels[1:], Level(1.0, 0.0, 0.0)], strict=True):
        points.append(x)
        t = torch.full([len(x)], float(level.t), device=x.device)
        output = guide(predicted(teacher, x, t, told.uncond), predicted(teacher, x, t, told.cond), CFG)
        x = ddim(x, denoised_from(output, x, level, teacher.prediction), level, following)
    return Trajectories(torch.stack(points), x, captions)


def predicted(base: Base, x: Tensor, t: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """The network's output [B, C, h, w] at timesteps [B], for inputs of B rows or of one."""
    inputs = {name: value.expand(len(x), *value.shape[1:]) for name, value in inputs.items()}
    if base.family != "z-image":
        return base.run_network(x, t, inputs, 1.0, None).float()
    lengths = inputs["prompt_mask"].sum(1)  # its own way takes pictures one by one
    return velocity(base.network, x, t / 1000, inputs["prompt_embeds"], lengths).float()


def pooled(pool: Trajectories | None, new: Trajectories) -> Trajectories:
    """The pool with new trajectories, and without the oldest."""
    if pool is None:
        return new
    kept = (KEPT - 1) * len(new.ends)
    points, ends, captions = pool.points[:, -kept:], pool.ends[-kept:], pool.captions[-kept:]
    return Trajectories(
        torch.cat([points, new.points], 1), torch.cat([ends, new.ends]), torch.cat([captions, new.captions])
    )


def inconsistency(
    student: Base,
    levels: Sequence[Level],
    prompts: Prompts,
    pool: Trajectories,
    batch: int,
    generator: torch.Generator,
) -> Tensor:
    """How far from its trajectory's end a point is sent: the mean over ``batch`` points of the pool, pseudo-Huber."""
    device = pool.ends.device
    row = torch.randint(len(pool.ends), (batch,), generator=generator, device=device)
    place = torch.randint(1, len(levels), (batch,), generator=generator, device=device)
    place[: round(FIRST * batch)] = 0
    points, ends, told = pool.points[place, row], pool.ends[row], prompts[pool.captions[row]]
    alpha, sigma, t = (
        torch.tensor([getattr(level, name) for level in levels], device=device)[place]
        for name in ("alpha", "sigma", "t")
    )
    output = predicted(student, points, t, told.cond)
    several = Level(alpha[:, None, None, None], sigma[:, None, None, None], t)
    squared = (denoised_from(output, points, several, student.prediction) - ends).square().mean((1, 2, 3))
    return ((squared + HUBER**2).sqrt() - HUBER).mean()
