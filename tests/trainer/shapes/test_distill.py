"""A few-step model out of the shapes world's: a pipeline folder, which goes to trajectories' ends in one step."""

from __future__ import annotations

import pytest
import torch

from trainer import bases
from trainer.shapes import BASE, world
from trainer.shapes.distill import distil, inconsistency, levels_of, trajectories


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return [scene.caption for scene in world.SCENES[:40]]


def test_a_student_of_a_minute_goes_to_the_end_in_one_step(captions, tmp_path):
    student = bases.load_base(distil(BASE, tmp_path / "student", captions, rounds=5, batch=8))
    assert (student.distilled, student.guidance) == (True, "none")
    teacher = bases.load_base(BASE)
    levels, prompts = levels_of(teacher), bases.encode(teacher, captions)
    generator = torch.Generator().manual_seed(1)
    fresh = trajectories(teacher, levels, prompts, torch.arange(16), generator)
    with torch.no_grad():
        before, after = (
            inconsistency(each, levels, prompts, fresh, 32, torch.Generator().manual_seed(2))
            for each in (teacher, student)
        )
    assert after < 0.95 * before


def test_trajectories_are_those_of_sampling(captions):
    base = bases.load_base(BASE)
    prompts = bases.encode(base, captions)
    few = trajectories(base, levels_of(base), prompts, torch.arange(2), torch.Generator().manual_seed(0))
    sampled = bases.sample(base, few.points[0], prompts[[0, 1]], bases.Schedule("ddim", 16, "trailing"), 4.0)
    difference = (few.ends - sampled).square().mean().sqrt() / sampled.std()
    assert difference < 0.05  # sampling ends at alphas_cumprod[0], trajectories without any noise
