"""Images with a gradient with respect to the noise: the same images, and the gradient that differences show."""

from __future__ import annotations

import pytest
import torch

from tests import tiny_pipelines
from trainer import bases
from trainer.bases import Schedule

KINDS = ("sd", "sdxl", "z_image", "sd3", "flux")
DIFFUSION = ((Schedule("euler", 1, "trailing"), 1.0), (Schedule("ddim", 2, "trailing"), 3.0), (Schedule("lcm", 2), 1.0))
FLOW = ((Schedule("euler", 1), 1.0), (Schedule("euler", 2), 3.0))
SEEDS = [0, 1]


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    base = bases.load_base(getattr(tiny_pipelines, f"tiny_{request.param}")(tmp_path_factory.mktemp("base")))
    for part in bases.PARTS:
        for module in base.modules(part):
            module.requires_grad_(False)
    return base


def test_images_are_those_of_sampling_and_gradients_those_of_differences(base):
    told = bases.encode(base, ["a red circle", "the blue square"])
    noise = bases.initial_noise(base, SEEDS, 64, 64)
    for schedule, cfg in FLOW if base.prediction == "flow_prediction" else DIFFUSION:
        x = noise.clone().requires_grad_()
        images = bases.generate(base, x, told, schedule, cfg, seeds=SEEDS)
        with torch.no_grad():
            expected = bases.decode(base, bases.sample(base, noise, told, schedule, cfg, seeds=SEEDS))
        assert torch.equal(images, expected)

        weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
        (gradient,) = torch.autograd.grad((images * weights).sum(), x)
        along = gradient / gradient.norm()
        with torch.no_grad():
            high, low = (
                (bases.generate(base, noise + step * along, told, schedule, cfg, seeds=SEEDS) * weights).sum()
                for step in (2e-2, -2e-2)
            )
        assert ((high - low) / 4e-2).item() == pytest.approx(gradient.norm().item(), rel=0.03), schedule


def test_checkpointing_changes_nothing(base):
    told = bases.encode(base, ["a red circle"])
    schedule = Schedule("euler", 2) if base.prediction == "flow_prediction" else Schedule("ddim", 2, "trailing")
    gradients = []
    for checkpointing in (False, True):
        for part in (base.network, base.pipe.vae):
            part.enable_gradient_checkpointing() if checkpointing else part.disable_gradient_checkpointing()
        x = bases.initial_noise(base, [0], 64, 64).requires_grad_()
        images = bases.generate(base, x, told, schedule, 1.0)
        gradients.append(torch.autograd.grad(images.square().sum(), x)[0])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)
