"""Re-denoising in fp64 against diffusers' schedulers, the paper's formulas and cases that can be solved by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from npnet_core import redenoising as module
from npnet_core.errors import InputError
from npnet_core.redenoising import Level, check_levels, ddim, denoised_from, evaluations, guide, redenoise

CFG, INVERSION_CFG = 5.5, 1.0
SDXL = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
    timestep_spacing="leading",
)


def sdxl_alpha_cumprod(t: int) -> float:
    """SDXL's schedule from its definition, in fp64."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return float(np.cumprod(1 - betas)[t])


def sdxl_levels(steps: int, count: int = 3) -> list[Level]:
    timesteps = [1 + 1000 // steps * (steps - 1 - i) for i in range(count)]
    return [Level.diffusion(sdxl_alpha_cumprod(t), t) for t in timesteps]


def exploding(levels: list[Level]) -> list[Level]:
    """The same levels as ComfyUI holds them."""
    return [Level.exploding(level.sigma / level.alpha) for level in levels]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TinyModel(nn.Module):
    """A random nonlinear network of (x, t, prompt) in fp64 that counts the rows it is given."""

    def __init__(self, kind: str):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.rows, self.calls = kind, 0, []
        self.net = nn.Sequential(nn.Conv2d(6, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 4, 3, padding=1)).double()

    def forward(self, x: torch.Tensor, t: float, prompt: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        told = torch.full_like(x[:, :1], t / 1000)
        said = prompt.view(-1, 1, 1, 1).expand_as(told)
        with torch.no_grad():
            return self.net(torch.cat([x, told, said], 1))

    def eps(self, x: torch.Tensor, level: Level, cfg: float) -> torch.Tensor:
        """The guided raw output at x as the network sees it (unit variance)."""
        self.calls.append((level.t, cfg))
        cond, uncond = torch.ones(len(x)).double(), torch.zeros(len(x)).double()
        if cfg == 1:
            return self(x, level.t, cond)
        both = self(torch.cat([x, x]), level.t, torch.cat([uncond, cond]))
        return guide(*both.chunk(2), cfg)

    def denoise(self, x: torch.Tensor, level: Level, cfg: float) -> torch.Tensor:
        return denoised_from(self.eps(x, level, cfg), x, level, self.kind)


# -- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [4, 10, 50])
def test_ddim_equals_diffusers_on_its_whole_grid(kind, steps):
    scheduler = DDIMScheduler(**SDXL, prediction_type=kind)
    scheduler.set_timesteps(steps)
    x, output = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    for t in scheduler.timesteps.tolist():
        below = t - 1000 // steps
        start, end = (Level.diffusion(scheduler.alphas_cumprod[max(s, 0)].item(), s) for s in (t, below))
        ours = ddim(x, denoised_from(output, x, start, kind), start, end)
        torch.testing.assert_close(ours, scheduler.step(output, t, x).prev_sample, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [4, 10, 50])
def test_inversion_equals_diffusers_and_the_algebraic_inverse(kind, steps):
    inverse = DDIMInverseScheduler(**SDXL, prediction_type=kind)
    inverse.set_timesteps(steps)
    x, output = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    for t in range(1 + 1000 // steps, 1000, 1000 // steps):
        above, below = (Level.diffusion(inverse.alphas_cumprod[s].item(), s) for s in (t, t - 1000 // steps))
        denoised = denoised_from(output, x, below, kind)
        inverted = ddim(x, denoised, below, above)
        torch.testing.assert_close(inverted, inverse.step(output, t, x).prev_sample, rtol=1e-6, atol=1e-6)
        # eq. 2 as it is printed, and back again with the same prediction
        eps = (x - below.alpha * denoised) / below.sigma
        ratio = above.alpha / below.alpha
        torch.testing.assert_close(inverted, ratio * x + (above.sigma - ratio * below.sigma) * eps)
        torch.testing.assert_close(ddim(inverted, denoised, above, below), x)


def test_flow_step_is_eulers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    x, velocity = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    sigmas = scheduler.sigmas.double().tolist()
    assert sigmas[0] == 1.0
    for i, t in enumerate(scheduler.timesteps):
        start, end = Level.flow(sigmas[i]), Level.flow(sigmas[i + 1])
        ours = ddim(x, denoised_from(velocity, x, start, "flow_prediction"), start, end)
        torch.testing.assert_close(ours, x + (sigmas[i + 1] - sigmas[i]) * velocity)
        theirs = scheduler.step(velocity, t, x).prev_sample
        torch.testing.assert_close(ours, theirs.double(), rtol=1e-6, atol=1e-6)


def test_guidance_is_eq_3():
    cond, uncond = noise(4), noise(4, seed=1)
    for w in (0.0, 1.0, 5.5):
        omega = w - 1
        torch.testing.assert_close(guide(uncond, cond, w), (omega + 1) * cond - omega * uncond)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow_prediction"])
def test_each_prediction_stands_for_the_same_clean_latent(kind):
    denoised, eps = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    levels = [Level.flow(1.0), Level.flow(0.7)] if kind == "flow_prediction" else sdxl_levels(10)
    for level in levels:
        output = {
            "epsilon": eps,
            "v_prediction": level.alpha * eps - level.sigma * denoised,
            "flow_prediction": eps - denoised,
        }[kind]
        x = level.alpha * denoised + level.sigma * eps
        torch.testing.assert_close(denoised_from(output, x, level, kind), denoised)


def test_guidance_means_the_same_in_every_parameterisation():
    x, level = noise(2, 4, 8, 8), sdxl_levels(10)[0]
    outputs = noise(2, 2, 4, 8, 8, seed=1)
    for kind in ("epsilon", "v_prediction"):
        before = denoised_from(guide(*outputs, CFG), x, level, kind)
        after = guide(*(denoised_from(output, x, level, kind) for output in outputs), CFG)
        torch.testing.assert_close(before, after)


# -- re-denoising -----------------------------------------------------------------------------------------------------


@st.composite
def falling_levels(draw) -> tuple[str, list[Level]]:
    form = draw(st.sampled_from(["epsilon", "v_prediction", "exploding", "flow_prediction"]))
    sigmas = [draw(st.floats(0.2, 1.0 if form == "flow_prediction" else 0.999))]
    for _ in range(draw(st.integers(1, 3))):
        sigmas.append(sigmas[-1] * draw(st.floats(0.2, 0.99)))
    if form == "flow_prediction":
        return form, [Level.flow(sigma) for sigma in sigmas]
    levels = [Level.diffusion(1 - noise_share, 0) for noise_share in sigmas]
    return form, exploding(levels) if form == "exploding" else levels


@given(falling_levels(), st.integers(1, 3), st.floats(1, 10), st.sampled_from(["exact", "fixed-point"]))
def test_constant_eps_and_equal_guidance_is_the_identity(form_and_levels, rounds, cfg, inversion):
    form, levels = form_and_levels
    depth = len(levels) - 1
    x, eps = noise(1, 4, 4, 4), noise(1, 4, 4, 4, seed=1)

    def denoise(x, level, cfg):  # the same eps everywhere (flow: the same velocity), said in the model's own terms
        if form == "v_prediction":
            velocity = (eps - level.sigma * x) / level.alpha
            return denoised_from(velocity, x, level, form)
        return denoised_from(eps, x, level, "epsilon" if form == "exploding" else form)

    settings = {"cfg": cfg, "inversion_cfg": cfg, "rounds": rounds, "inversion": inversion, "depth": depth}
    target = redenoise(denoise, x, levels, **settings).target
    torch.testing.assert_close(target, x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_exact_is_eq_12(kind):
    model, x, levels = TinyModel(kind), noise(2, 4, 8, 8), sdxl_levels(10)
    top, low = levels[:2]
    target = redenoise(model.denoise, x, levels[:2], cfg=CFG, inversion_cfg=INVERSION_CFG).target

    def eps(x, level, cfg):
        output = model.eps(x, level, cfg)
        return output if kind == "epsilon" else level.sigma * x + level.alpha * output

    eps_l = eps(x, top, CFG)
    x_low = low.alpha * (x - top.sigma * eps_l) / top.alpha + low.sigma * eps_l  # eq. 1
    eps_w = eps(x_low, low, INVERSION_CFG)
    factor = (top.alpha * low.sigma - low.alpha * top.sigma) / low.alpha
    torch.testing.assert_close(target - x, factor * (eps_l - eps_w))


def coefficients(inversion: str, levels: list[Level]) -> list[float]:
    """Of x, eps_l and eps_w in the target, in the variance-preserving form: re-denoising is linear in the three."""
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    scale = levels[0].scale

    def of(x, eps_l, eps_w):
        def denoise(x, level, cfg):
            return denoised_from(eps_l if cfg == CFG else eps_w, x, level, "epsilon")

        return (redenoise(denoise, x * scale, levels, cfg=CFG, inversion=inversion).target / scale).item()

    return [of(one, zero, zero), of(zero, one, zero), of(zero, zero, one)]


@pytest.mark.parametrize("form", [list, exploding])
def test_coefficients_at_ten_steps_of_sdxl(form):
    levels = form(sdxl_levels(10))
    assert coefficients("exact", levels) == pytest.approx([1, -0.385, 0.385], abs=5e-4)
    assert coefficients("released", levels) == pytest.approx([1.079, -0.416, 0.342], abs=5e-4)


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_released_is_what_diffusers_computes_one_step_off(steps):
    forward, inverse = DDIMScheduler(**SDXL), DDIMInverseScheduler(**SDXL)
    forward.set_timesteps(steps)
    inverse.set_timesteps(steps)
    t0, t1, t2 = forward.timesteps[:3].tolist()
    levels = [Level.diffusion(forward.alphas_cumprod[t].item(), t) for t in (t0, t1, t2)]
    model, x = TinyModel("epsilon"), noise(2, 4, 8, 8)
    target = redenoise(model.denoise, x, levels, cfg=CFG, inversion="released").target
    lower = forward.step(model.eps(x, levels[0], CFG), t0, x).prev_sample
    expected = inverse.step(model.eps(lower, levels[0], INVERSION_CFG), t1, lower).prev_sample
    torch.testing.assert_close(target, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inversion", ["exact", "released"])
def test_comfyui_and_diffusers_latents_give_the_same_noise(inversion):
    model, x, levels = TinyModel("epsilon"), noise(2, 4, 8, 8), sdxl_levels(10)
    by_sigma = {level.sigma / level.alpha: level for level in levels}

    def denoise_exploding(x, level, cfg):  # ComfyUI's contract: model(x, sigma) -> denoised
        eps = model.eps(x / math.sqrt(1 + level.t**2), by_sigma[level.t], cfg)
        return x - level.t * eps

    start = x * exploding(levels)[0].scale
    ours = redenoise(denoise_exploding, start, exploding(levels), rounds=2, inversion=inversion)
    theirs = redenoise(model.denoise, x, levels, rounds=2, inversion=inversion)
    torch.testing.assert_close(ours.target / exploding(levels)[0].scale, theirs.target)
    torch.testing.assert_close(ours.first_denoised, theirs.first_denoised)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_depth_is_as_many_steps_of_diffusers_down_and_back(kind):
    forward = DDIMScheduler(**SDXL, prediction_type=kind)
    inverse = DDIMInverseScheduler(**SDXL, prediction_type=kind)
    forward.set_timesteps(10)
    inverse.set_timesteps(10)
    timesteps = forward.timesteps[:4].tolist()
    levels = [Level.diffusion(forward.alphas_cumprod[t].item(), t) for t in timesteps]
    model, x = TinyModel(kind), noise(2, 4, 8, 8)
    expected = x
    for level, t in zip(levels, timesteps[:3], strict=False):
        expected = forward.step(model.eps(expected, level, CFG), t, expected).prev_sample
    for level, t in zip(levels[:0:-1], timesteps[2::-1], strict=True):  # diffusers names the level that is stepped to
        expected = inverse.step(model.eps(expected, level, INVERSION_CFG), t, expected).prev_sample
    target = redenoise(model.denoise, x, levels, cfg=CFG, depth=3).target
    torch.testing.assert_close(target, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", [list, exploding])
@pytest.mark.parametrize("depth", [1, 3])
def test_fixed_points_undo_unguided_steps(monkeypatch, form, depth):
    model, levels = TinyModel("epsilon"), form(sdxl_levels(10, 4))
    timesteps = dict(zip(levels, sdxl_levels(10, 4), strict=True))
    x = noise(2, 4, 8, 8) * levels[0].scale

    def denoise(x, level, cfg):
        return denoised_from(model.eps(x / level.scale, timesteps[level], cfg), x, level, "epsilon")

    def error(inversion: str) -> float:
        found = redenoise(denoise, x, levels, cfg=1.0, inversion_cfg=1.0, inversion=inversion, depth=depth).target
        return ((found - x).norm() / x.norm()).item()

    assert error("fixed-point") < 0.8 * error("exact")
    monkeypatch.setattr(module, "ITERATIONS", 60)
    assert error("fixed-point") < 1e-6


@given(st.floats(0.2, 1.0), st.floats(0.1, 0.99))
def test_flow_is_the_straight_line_solution(high, fraction):
    """Where the model aims at one fixed picture per guidance, both ways are straight lines, from pure noise too."""
    low = high * fraction
    x, aim_l, aim_w = (noise(1, 4, 4, 4, seed=seed) for seed in range(3))
    levels = [Level.flow(high), Level.flow(low)]
    target = redenoise(lambda x, level, cfg: aim_l if cfg == CFG else aim_w, x, levels, cfg=CFG).target
    lower = aim_l + (x - aim_l) * low / high
    torch.testing.assert_close(target, aim_w + (lower - aim_w) * high / low, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inversion", ["exact", "released"])
def test_rounds_are_repetition(inversion):
    model, x, levels = TinyModel("epsilon"), noise(2, 4, 8, 8), sdxl_levels(10)
    once = x
    for _ in range(3):
        once = redenoise(model.denoise, once, levels, inversion=inversion).target
    torch.testing.assert_close(
        redenoise(model.denoise, x, levels, inversion=inversion, rounds=3).target, once, rtol=0, atol=0
    )


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("inversion", ["exact", "released"])
def test_three_rows_per_image_and_round(inversion, rounds):
    model, levels = TinyModel("epsilon"), sdxl_levels(10)
    redenoise(model.denoise, noise(5, 4, 8, 8), levels, inversion=inversion, rounds=rounds)
    assert model.rows == 3 * 5 * rounds
    told_back = levels[1].t if inversion == "exact" else levels[0].t
    assert model.calls == [(levels[0].t, 5.5), (told_back, 1.0)] * rounds


@pytest.mark.parametrize(("inversion", "depth"), [("exact", 2), ("fixed-point", 1), ("fixed-point", 3)])
def test_evaluations_are_as_announced(inversion, depth):
    model, levels = TinyModel("epsilon"), sdxl_levels(10, 4)
    redenoise(model.denoise, noise(1, 4, 8, 8), levels, inversion=inversion, depth=depth, rounds=2)
    assert len(model.calls) == evaluations(2, inversion, depth)
    assert [t for t, cfg in model.calls if cfg == 5.5] == 2 * [level.t for level in levels[:depth]]


def test_first_prediction_serves_the_source_image_too():
    model, x, levels = TinyModel("epsilon"), noise(2, 4, 8, 8), sdxl_levels(10)
    pair = redenoise(model.denoise, x, levels, rounds=2)
    scheduler = DDIMScheduler(**SDXL)
    scheduler.set_timesteps(10)
    expected = scheduler.step(model.eps(x, levels[0], CFG), scheduler.timesteps[0], x).prev_sample
    torch.testing.assert_close(ddim(x, pair.first_denoised, *levels[:2]), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", [list, exploding])
def test_fp32_is_close_and_the_input_is_kept(form):
    model, levels = TinyModel("epsilon"), form(sdxl_levels(10))
    timesteps = dict(zip(levels, sdxl_levels(10), strict=True))

    def denoise(x, level, cfg):
        eps = model.eps(x.double() / level.scale, timesteps[level], cfg)
        return denoised_from(eps.to(x.dtype), x, level, "epsilon")

    x = noise(2, 4, 8, 8).float().double() * levels[0].scale
    start = x.float()
    kept = start.clone()
    target = redenoise(denoise, start, levels).target
    assert target.dtype == torch.float32
    assert torch.equal(start, kept)
    expected = redenoise(denoise, x, levels).target
    torch.testing.assert_close(target.double(), expected, rtol=1e-5, atol=1e-5 * levels[0].scale)


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigmas", "inversion", "said"),
    [
        ([14.6], "exact", "needs 2 noise levels and got 1"),
        ([], "exact", "got 0"),
        ([14.6, 4.0], "released", "needs 3 noise levels and got 2"),
        ([4.0, 14.6], "exact", "falling sigmas.* 4, 14.6"),
        ([4.0, 4.0], "exact", "falling sigmas"),
        ([14.6, 0.0], "exact", "the first 2 above 0"),
        ([14.6, float("nan")], "exact", "falling sigmas"),
        ([14.6, 8.0, 9.0], "released", "falling sigmas"),
        ([14.6, 8.0], "inexact", "'inexact' is not known"),
    ],
)
def test_levels_that_cannot_be_used(sigmas, inversion, said):
    with pytest.raises(InputError, match=said):
        check_levels([Level.exploding(sigma) for sigma in sigmas], inversion)


def test_other_refusals():
    x, levels = noise(1, 4, 4, 4), sdxl_levels(10)
    with pytest.raises(InputError, match="flow"):
        check_levels([Level.flow(s) for s in (1.0, 0.9, 0.8)], "released")
    with pytest.raises(InputError, match="0 times"):
        redenoise(lambda x, level, cfg: x, x, levels, rounds=0)
    with pytest.raises(InputError, match="depth 0 makes no pair"):
        check_levels(levels, "exact", 0)
    with pytest.raises(InputError, match="needs 4 noise levels and got 3"):
        check_levels(levels, "fixed-point", 3)
    with pytest.raises(InputError, match="'released' is for one step and depth 2"):
        check_levels(levels, "released", 2)
    with pytest.raises(InputError, match="depth 2 needs falling sigmas, the first 3 above 0"):
        check_levels([Level.exploding(sigma) for sigma in (14.6, 8.0, 0.0)], "exact", 2)
    with pytest.raises(InputError, match="'sample'"):
        denoised_from(x, x, levels[0], "sample")


def test_levels_beyond_the_ones_needed_do_not_matter():
    check_levels([Level.exploding(sigma) for sigma in (14.6, 8.0, 8.0)], "exact")
    check_levels([Level.flow(1.0), Level.flow(0.9)])
    check_levels([*sdxl_levels(2, 2), Level.diffusion(1.0, -499)], "released")  # diffusers: clean below t = 0
