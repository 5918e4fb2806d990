"""Figures of nets that need no sampling, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from npnet_core.checkpoint import save_npnet
from npnet_core.config import NPNetConfig
from npnet_core.diagnostics import dependence, device_difference, explained, prompt_dependence, whiteness
from npnet_core.errors import InputError
from npnet_core.golden import golden_noise
from npnet_core.model import NPNet
from npnet_core.npd import Manifest, NPDWriter
from tests import tiny_pipelines
from trainer import bases
from trainer.bases import Schedule, load_base
from trainer.commands.cli import main
from trainer.data.prompts import PromptRow
from trainer.evaluation.diagnostics import diagnose
from trainer.evaluation.draws import draw
from trainer.evaluation.sampling_settings import Setting

SETTING = Setting(Schedule("ddim", 2), 1.0, 64, 96)
DRAWS = draw([PromptRow(f"a {colour} circle") for colour in ("red", "blue", "green")], range(100), 2)


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(strength: float) -> NPNet:
    """For the tiny SD; 0 is the identity."""
    torch.manual_seed(0)
    small = {"swin_size": 16, "swin_dim": 8, "swin_depths": (1, 1), "swin_heads": (1, 2), "swin_window": 2}
    npnet = NPNet(NPNetConfig(family="sd", resolution=8, prompt_dim=32, **small))
    with torch.no_grad():
        npnet.alpha.fill_(strength)
        npnet.beta.fill_(strength)
    return npnet.eval()


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return load_base(tiny_pipelines.tiny_sd(tmp_path_factory.mktemp("base") / "sd"))


# -- whiteness --------------------------------------------------------------------------------------------------------


def test_white_noise_is_white():
    """Within four standard deviations: √(2/N) of the variance, 1/√N of a correlation; the shares of frequencies are
    (32/128)² and 1 − (97/128)², about."""
    noise = white(16, 4, 128, 128)
    figures, n = whiteness(noise), noise.numel()
    assert abs(figures.variance - 1) < 4 * (2 / n) ** 0.5
    assert abs(figures.lag_x) < 4 / n**0.5
    assert abs(figures.lag_y) < 4 / n**0.5
    assert abs(figures.low - 1) < 4 * (2 / (n * (31 / 128) ** 2)) ** 0.5
    assert abs(figures.high - 1) < 4 * (2 / (n * (1 - (97 / 128) ** 2))) ** 0.5


def test_a_moving_average_has_its_spectrum():
    """(x[i] + x[i+1]) / √2 along a row, on a ring: correlation 1/2, power 1 + cos(2πf), where f is max(|fx|, |fy|) in
    one of its places."""
    noise = white(32, 4, 64, 64)
    figures = whiteness((noise + noise.roll(-1, -1)) / 2**0.5)
    f = np.abs(np.fft.fftfreq(64))
    highest, power = np.maximum(f[:, None], f[None, :]), np.broadcast_to(1 + np.cos(2 * np.pi * f), (64, 64))
    assert figures.lag_x == pytest.approx(0.5, abs=0.01)
    assert figures.lag_y == pytest.approx(0, abs=0.01)
    assert figures.low == pytest.approx(power[highest < 1 / 8].mean(), rel=0.02)
    assert figures.high == pytest.approx(power[highest > 3 / 8].mean(), rel=0.02)
    across = whiteness(((noise + noise.roll(-1, -1)) / 2**0.5).mT)
    assert (across.lag_y, across.lag_x) == pytest.approx((figures.lag_x, figures.lag_y), abs=1e-9)


def test_scale_is_variance_and_a_mean_is_not():
    noise = white(8, 4, 32, 32)
    figures, larger = whiteness(noise), whiteness(3 * noise)
    assert larger == pytest.approx(
        (9 * figures.variance, figures.lag_x, figures.lag_y, 9 * figures.low, 9 * figures.high)
    )
    shifted = whiteness(noise + 2)
    assert shifted.variance == pytest.approx(figures.variance, rel=1e-5)
    assert shifted.lag_x == pytest.approx(4 / 5, abs=0.01)  # neighbours share the mean
    assert shifted.low > 50


# -- nets -------------------------------------------------------------------------------------------------------------


def test_explained_shares():
    source, change = white(2, 4, 8, 8), white(2, 4, 8, 8, seed=1)
    target = source + change
    for share in (0.0, 0.5, 1.0, 2.0):
        assert explained(source, target, source + share * change) == pytest.approx(1 - (1 - share) ** 2, abs=1e-6)
    assert explained(source, target, source - change) == pytest.approx(-3, abs=1e-6)


def test_dependence_is_a_ratio_of_distances():
    x, a, b = torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[3.0, 3.0]]]])
    assert dependence(x, a, b) == pytest.approx(1 / 5)
    npnet, noise, prompt = net(1.0), white(2, 4, 8, 12), white(2, 77, 32, seed=1)
    golden, other = golden_noise(npnet, noise, prompt), golden_noise(npnet, noise, prompt.roll(1, 0))
    assert prompt_dependence(npnet, noise, prompt, prompt.roll(1, 0)) == dependence(noise, golden, other) > 0.01
    assert math.isnan(prompt_dependence(net(0.0), noise, prompt, prompt.roll(1, 0)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree():
    assert device_difference(net(1.0), white(2, 4, 8, 12), white(2, 77, 32), torch.device("cuda")) < 1e-4


def test_a_device_agrees_with_itself():
    npnet = net(1.0)
    assert device_difference(npnet, white(2, 4, 8, 12), white(2, 77, 32), torch.device("cpu")) == 0


# -- of an evaluation -------------------------------------------------------------------------------------------------


def pairs_of(folder, base, npnet, family: str = "sd"):
    """A dataset whose targets are the net's golden noise, all of its own size: at others fp16 changes the checksum that
    seeds the fresh noise of :func:`golden_noise`."""
    manifest = Manifest(family, (14.6, 10.0), 5.5, 1.0, "exact", 1, {})
    with NPDWriter(folder, manifest, worker="w") as writer:
        for seed in range(10):
            prompt = DRAWS[seed % 3].prompt
            noise = bases.initial_noise(base, [seed], 64, 64)
            target = golden_noise(npnet, noise, bases.encode(base, [prompt]).prompt_embeds)
            writer.add(noise[0], target[0], prompt=prompt, seed=seed)
    return folder


def test_what_is_said_of_nets(tmp_path, base):
    nets = {"teacher": net(1.0), "nothing": net(0.0)}
    dataset = pairs_of(tmp_path / "pairs", base, nets["teacher"])
    figures = diagnose(base, nets, DRAWS, SETTING, dataset)
    teacher, nothing = figures["teacher"], figures["nothing"]
    assert teacher["explained of pairs"] == pytest.approx(1, abs=1e-3)  # fp16 on the disk
    assert nothing["explained of pairs"] == pytest.approx(0, abs=1e-3)
    assert "prompt dependence" not in nothing  # of no change nothing can be said
    assert teacher["prompt dependence"] > 0.01
    for figure in ("singular vectors shared, left", "singular vectors shared, right", "correlation with the source"):
        assert nothing[figure] == pytest.approx(1, abs=1e-4)
        assert teacher[figure] < 0.999
    noise = bases.initial_noise(base, [each.seed for each in DRAWS], SETTING.height, SETTING.width)
    assert noise.shape == (6, 4, 8, 12)
    assert nothing["variance"] == pytest.approx(noise.var(correction=0).item(), rel=1e-5)
    assert nothing["variance"] == pytest.approx(whiteness(noise).variance)
    assert "explained of pairs" not in diagnose(base, nets, DRAWS, SETTING)["teacher"]


def test_one_prompt_has_no_other(base):
    figures = diagnose(base, {"a": net(1.0)}, draw([PromptRow("a red circle")], range(9), 3), SETTING)
    assert "prompt dependence" not in figures["a"]
    assert figures["a"]["variance"] > 0


def test_a_dataset_of_another_base_model(tmp_path, base):
    dataset = pairs_of(tmp_path / "pairs", base, net(0.0), family="sdxl")
    with pytest.raises(InputError, match=r"was collected with sdxl and .* is of family sd"):
        diagnose(base, {"a": net(1.0)}, DRAWS, SETTING, dataset)


def test_inspect_shows_what_needs_no_model(tmp_path, capsys):
    save_npnet(net(0.0), tmp_path / "identity.safetensors")
    assert main(["inspect", str(tmp_path / "identity.safetensors")]) == 0
    said = capsys.readouterr().out
    expected = whiteness(torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert f"variance {expected.variance:.3f}, correlation of neighbours {expected.lag_x:+.3f}" in said
