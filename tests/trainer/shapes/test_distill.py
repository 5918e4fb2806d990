"""A few-step model out of the shapes world's: a pipeline folder, which goes to trajectories' ends in one step."""

from __future__ import annotations

import diffusers
import pytest
import torch

from trainer import bases
from trainer.shapes import BASE, FLOW, world
from trainer.shapes.distill import CFG, STEPS, distil, inconsistency, levels_of, predicted, trajectories

CAPTIONS = [scene.caption for scene in world.SCENES[:40]]


@pytest.mark.parametrize("teacher", [BASE, FLOW], ids=["base", "flow"])
def test_a_student_of_seconds_goes_further_in_one_step(teacher, tmp_path, caplog):
    diffusers.utils.logging.enable_propagation()
    student = bases.load_base(distil(teacher, tmp_path / "student", CAPTIONS, rounds=3, batch=4))
    diffusers.utils.logging.disable_propagation()
    assert "not expected" not in caplog.text  # by diffusers, of what the folder says
    assert (student.distilled, student.guidance) == (True, "none")
    base = bases.load_base(teacher)
    levels, prompts = levels_of(base), bases.encode(base, CAPTIONS)
    fresh = trajectories(base, levels, prompts, torch.arange(16), torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = (
            inconsistency(each, levels, prompts, fresh, 32, torch.Generator().manual_seed(2))
            for each in (base, student)
        )
    assert after < before


@pytest.mark.parametrize("folder", [BASE, FLOW], ids=["base", "flow"])
def test_trajectories_are_those_of_sampling(folder):
    base = bases.load_base(folder)
    prompts = bases.encode(base, CAPTIONS)
    few = trajectories(base, levels_of(base), prompts, torch.arange(2), torch.Generator().manual_seed(0))
    flow = base.prediction == "flow_prediction"
    schedule = bases.Schedule("euler", STEPS) if flow else bases.Schedule("ddim", STEPS, "trailing")
    sampled = bases.sample(base, few.points[0], prompts[[0, 1]], schedule, CFG)
    difference = (few.ends - sampled).square().mean().sqrt() / sampled.std()
    assert difference < 0.05  # sampling with eps ends at alphas_cumprod[0], trajectories without any noise


def test_predictions_are_the_bases_own():
    for folder in (BASE, FLOW):
        base = bases.load_base(folder)
        told, x = bases.encode(base, CAPTIONS[:3]), torch.randn(3, *bases.latent_shape(base))
        with torch.no_grad():
            one = predicted(base, x, torch.full([3], 500.0), told.cond)
        torch.testing.assert_close(one, bases.predict(base, x, 500.0, told, 1.0), atol=1e-4, rtol=1e-4)
