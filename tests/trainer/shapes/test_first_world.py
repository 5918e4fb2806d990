"""The shapes world of 0.1.0 is what it was: captions, pictures, and what its detector says of its base model's."""

from __future__ import annotations

import pytest
import torch

from npnet_core.errors import InputError
from trainer import bases
from trainer.shapes.first import world
from trainer.shapes.first.world import SCENES, Scene
from trainer.shapes.pipeline_stages import load_models
from trainer.shapes.worlds import first_of_all

CAPTIONS = (
    "a red triangle right of a yellow square",
    "a blue triangle below a yellow circle",
    "a green circle left of a red triangle",
    "a green triangle below a blue square",
)


def test_every_caption_names_its_scene():
    assert len(set(SCENES)) == len(SCENES) == 12 * 11 * 4
    assert [Scene.from_caption(scene.caption) for scene in SCENES] == list(SCENES)
    with pytest.raises(InputError, match="no caption"):
        Scene.from_caption("a small red cross at the left on a dark ground")


def test_captions_are_split_as_they_were():
    choosing, reporting = world.split_captions()
    assert (len(choosing), len(reporting)) == (400, 128)
    assert reporting[: len(CAPTIONS)] == list(CAPTIONS)
    assert {*choosing, *reporting} == {scene.caption for scene in SCENES}


def test_its_models_say_what_they_said():
    """Figures of 0.1.0's code, of four captions at guidance 5.5 and of their real pictures."""
    models = load_models(first_of_all())
    captions = list(CAPTIONS)
    noise = bases.initial_noise(models.base, range(4), *world.SIZE)
    latents = bases.sample(models.base, noise, bases.encode(models.base, captions), bases.Schedule("ddim", 10), 5.5)
    generator = torch.Generator().manual_seed(0)
    real = world.draw([Scene.from_caption(caption) for caption in captions], generator).images
    for images, likelihoods, right in (
        (bases.decode(models.base, latents), [-21.1929, -7.3772, -9.5873, -13.5216], [0.0] * 4),
        (real, [-0.0067, -0.0061, -0.0069, -0.0046], [1.0] * 4),
    ):
        preference, all_right = (scorer.score(images, captions).tolist() for scorer in models.scorers)
        assert preference == pytest.approx(likelihoods, abs=0.05)
        assert all_right == right
