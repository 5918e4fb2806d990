"""The second path of each preference model: without rounding, with a gradient that is that of its own scores."""

from __future__ import annotations

import pytest
import torch

from npnet_core.errors import InputError
from npnet_core.preference import Scorer, load_scorer
from npnet_core.preference.pixels import crop_to_square, pad_to_square
from tests import tiny_scorers
from tests.tiny_scorers import BLIP_CONFIG, CLIP_CONFIG, CLIP_WORDS, HPS_CONFIG, images

PROMPTS = ["a red circle left of a blue square", "one green circle"]
KINDS = ("hpsv2", "pickscore", "clipscore", "aesthetic", "imagereward", "mps")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """kind → a tiny scorer of that kind."""
    clip = tiny_scorers.write_clip(tmp_path_factory.mktemp("clip"))

    def load_kind(kind: str) -> Scorer:
        folder = tmp_path_factory.mktemp(kind)
        if kind == "hpsv2":
            return load_scorer(kind, tiny_scorers.write_hps(folder), config=HPS_CONFIG, tokenizer=CLIP_WORDS)
        if kind == "aesthetic":
            return load_scorer(kind, tiny_scorers.write_aesthetic(folder), config=CLIP_CONFIG)
        if kind == "imagereward":
            return load_scorer(kind, tiny_scorers.write_image_reward(folder), config=BLIP_CONFIG)
        if kind == "mps":
            return load_scorer(kind, tiny_scorers.write_mps(folder), config=CLIP_CONFIG, tokenizer=clip)
        return load_scorer(kind, clip)

    return load_kind


def unrounded(*shape: int) -> torch.Tensor:
    """Pictures [B, H, W, 3] that are not of eight bits."""
    dither = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(0)) / 255
    return (images(*shape) + dither).clamp(0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(load, kind):
    """In fp64 along random directions, for a wide picture and a tall one."""
    scorer = load(kind)
    scorer.model.double()
    for size in ((75, 120), (120, 70)):
        x = (0.1 + 0.8 * images(2, *size).double()).requires_grad_()
        scores = scorer.reward(x, PROMPTS)
        assert scores.dtype == torch.float64
        (gradient,) = torch.autograd.grad(scores.sum(), x)
        assert gradient.abs().amax((1, 2, 3)).min() > 0
        for seed in range(3):
            direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            with torch.no_grad():
                high, low = (scorer.reward(x + step * direction, PROMPTS).sum() for step in (1e-5, -1e-5))
            expected = (high - low) / 2e-5
            torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-9)
    assert all(weight.grad is None and not weight.requires_grad for weight in scorer.model.parameters())


@pytest.mark.parametrize("pixels", [pad_to_square, crop_to_square])
@pytest.mark.parametrize("size", [(1024, 1024), (832, 1216)])
def test_pixels_of_real_size_differ_by_what_rounding_can_do(pixels, size):
    """Half an eighth bit before, and half one after each pass of the resize, in which bicubic weights add up to 1.3 at
    most; in the mean far less."""
    picture = unrounded(1, *size)
    difference = (pixels(picture, 224) - pixels(picture, 224, rounded=False)).abs() * 0.28 * 255  # in eighth bits
    assert difference.max() < 2
    assert difference.mean() < 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_of_real_size_are_close_to_the_exact_scores(load, kind):
    """Closer than a tenth of the standard deviation between pictures."""
    scorer, batch = load(kind), unrounded(4, 1024, 1024)
    prompts = PROMPTS[:1] * len(batch)
    exact, smooth = scorer.score(batch, prompts), scorer.reward(batch, prompts)
    assert 0 < (exact - smooth).abs().max() < 0.1 * exact.std()


def test_a_scorer_without_gradient_is_refused():
    class Counted(Scorer):
        def rate(self, images, prompts):
            return (images > 0.5).float().mean((1, 2, 3))

    scorer = Counted("counted", torch.nn.Identity())
    assert not scorer.differentiable
    with pytest.raises(InputError, match=r"^The scores of counted have no gradient, .*: choose another scorer"):
        scorer.reward(images(1, 8, 8), PROMPTS[:1])


def test_images_are_checked_as_for_scores(load):
    scorer = load("pickscore")
    assert scorer.differentiable
    with pytest.raises(InputError, match="Images between"):
        scorer.reward(3 * torch.ones(1, 64, 64, 3), PROMPTS[:1])
    with pytest.raises(InputError, match="give a list with one prompt per image"):
        scorer.reward(images(2, 64, 64), PROMPTS[:1])
