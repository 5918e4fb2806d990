"""golden_noise(): sizes, batches, prompts, whiteness, and the formula against an independent one in float64."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from npnet_core.config import NPNetConfig
from npnet_core.errors import InputError
from npnet_core.golden import carry_back, golden_noise, to_square, transport
from npnet_core.model import NPNet
from tests.seeded import SMALL, VARIANTS, difference, published_inputs, published_net, small_inputs, small_net

IMAGES = ["1216x832", "1344x768", "1536x640", "768x768", "512x512", "1536x1536", "2048x2048"]


def latent_size(image: str) -> tuple[int, int]:
    """Height and width in latent pixels of an image of width x height pixels."""
    width, height = image.split("x")
    return int(height) // 8, int(width) // 8


def white(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(seed))


# --- the net's own size


@pytest.mark.parametrize("variant", VARIANTS)
def test_at_its_own_size_it_is_the_net_to_the_bit(variant):
    npnet, (noise, prompt) = published_net(variant), published_inputs(variant)
    singles = [npnet(noise[i : i + 1], prompt[i : i + 1]) for i in range(len(noise))]
    assert torch.equal(golden_noise(npnet, noise, prompt), torch.cat(singles))


def test_a_net_that_changes_nothing_changes_nothing_at_any_size():
    npnet = NPNet(NPNetConfig(**SMALL)).eval()
    for height, width in [(16, 16), (1, 1), (8, 8), (16, 40), (33, 77)]:
        noise = white(2, height, width)
        assert torch.equal(golden_noise(npnet, noise, small_inputs()[1]), noise)


# --- whiteness


class Isometry(NPNet):
    """A net that keeps white noise exactly white: every image is mirrored and its sign changed."""

    def __init__(self):
        super().__init__(NPNetConfig(prompt_tokens=1, prompt_dim=1, svd_branch=False, residual_branch=False))

    def forward(self, noise: Tensor, prompt: Tensor) -> Tensor:
        return -noise.flip(-1)


def frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """fy [height, 1] and fx [1, width] of a Fourier transform, in cycles per pixel."""
    return torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None, :]


def low_and_high(power: Tensor) -> tuple[float, float]:
    """Mean of a power spectrum [H, W] over max(|fx|, |fy|) below 1/8 and above 3/8 cycles per pixel."""
    fy, fx = frequencies(*power.shape)
    frequency = torch.maximum(fy.abs(), fx.abs())
    return float(power[frequency < 1 / 8].mean()), float(power[frequency > 3 / 8].mean())


def statistics(fields: Tensor) -> tuple[float, float, float, float]:
    """Lag-1 correlation along x and y, power of low and high frequencies: 0, 0, 1, 1 for white noise."""
    fields = fields.double()
    along_x = (fields[..., 1:] * fields[..., :-1]).mean() / fields.square().mean()
    along_y = (fields[..., 1:, :] * fields[..., :-1, :]).mean() / fields.square().mean()
    power = torch.fft.fft2(fields, norm="ortho").abs().square().mean((0, 1))
    return float(along_x), float(along_y), *low_and_high(power)


@pytest.mark.parametrize("image", IMAGES)
def test_golden_noise_is_as_white_as_the_net_leaves_it(image):
    noise = white(64, *latent_size(image))
    golden = golden_noise(Isometry().eval(), noise, torch.zeros(1, 1, 1))
    assert difference(golden, noise) > 0.5
    along_x, along_y, low, high = statistics(golden)
    assert abs(along_x) < 0.01
    assert abs(along_y) < 0.01
    assert low == pytest.approx(1, abs=0.03)
    assert high == pytest.approx(1, abs=0.03)


def test_the_statistics_see_what_resampling_does():
    """Pixels doubled in both axes: every second neighbour is equal, and the spectrum is 4 cos²(πfx) cos²(πfy)."""
    doubled = white(64, 64, 64).repeat_interleave(2, -1).repeat_interleave(2, -2)
    fy, fx = frequencies(128, 128)
    expected = low_and_high(4 * (math.pi * fy).cos().square() * (math.pi * fx).cos().square())
    assert statistics(doubled) == pytest.approx((64 / 127, 64 / 127, *expected), rel=0.02)


# --- the formula


@given(cells_out=st.integers(1, 12), cells_in=st.integers(1, 30))
def test_transport_is_the_overlap_of_cells(cells_out, cells_in):
    a = transport(cells_out, cells_in).a
    for k, m in itertools.product(range(cells_out), range(cells_in)):
        end = min(Fraction(k + 1, cells_out), Fraction(m + 1, cells_in))
        overlap = max(Fraction(0), end - max(Fraction(k, cells_out), Fraction(m, cells_in)))
        assert float(a[k, m]) == pytest.approx(float(overlap) * math.sqrt(cells_out * cells_in), abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 8), (8, 11), (16, 5), (13, 21), (40, 9)])
def test_what_the_net_sees_is_white(height, width):
    """z = M x + N ν is N(0, I) exactly where M Mᵀ + N Nᵀ = I."""
    resolution = 8
    basis_x = torch.eye(height * width).view(-1, 1, height, width)
    basis_fresh = torch.eye(resolution**2).view(-1, 1, resolution, resolution)
    m = to_square(basis_x, resolution, torch.zeros(1, 1, resolution, resolution)).flatten(1).double().T
    n = to_square(torch.zeros(1, 1, height, width), resolution, basis_fresh).flatten(1).double().T
    covariance = m @ m.T + n @ n.T
    assert (covariance - torch.eye(resolution**2)).abs().max() < 1e-6


@pytest.mark.parametrize("cells", [1, 33, 64, 77, 80, 96, 104, 127, 128, 152, 168, 192, 256])
def test_the_eigenvectors_are_those_of_the_transport(cells):
    a, vectors, values = (x.double() for x in transport(128, cells))
    assert (vectors @ torch.diag(values) @ vectors.T - a @ a.T).abs().max() < 1e-6
    assert (vectors @ vectors.T - torch.eye(128)).abs().max() < 1e-6
    assert values.min() >= 0
    assert torch.linalg.matrix_norm(a, 2) == pytest.approx(1, abs=1e-6)


def integrated(field: Tensor, dim: int, cells: int) -> Tensor:
    """One axis (counted from the front) to another number of cells, in float64: sums over each new cell of the common
    refinement of both grids."""
    old = field.shape[dim]
    fine = math.lcm(old, cells)
    refined = field.double().repeat_interleave(fine // old, dim)
    return refined.unflatten(dim, (cells, fine // cells)).sum(dim + 1) * math.sqrt(old * cells) / fine


def recorded(npnet: NPNet) -> list[tuple[Tensor, Tensor]]:
    """What the net sees and gives from now on, call by call."""
    calls = []
    npnet.register_forward_hook(lambda module, args, output: calls.append((args[0], output)))
    return calls


@pytest.mark.parametrize("size", [*map(latent_size, IMAGES), (33, 77), (127, 129)])
@pytest.mark.parametrize("net", [Isometry, lambda: small_net(prompt_tokens=1, prompt_dim=1)])
def test_the_carried_change_is_the_formula_in_float64(net, size):
    npnet = net().eval()
    calls = recorded(npnet)
    noise = white(1, *size)
    golden = golden_noise(npnet, noise, torch.ones(1, 1, 1))
    ((z, output),) = calls
    change = output.double() - z.double()
    expected = integrated(integrated(change, 2, size[0]), 3, size[1])
    assert difference(golden.double() - noise.double(), expected) < 1e-5


@pytest.mark.parametrize("size", [(33, 77), (16, 24), (8, 16)])
def test_what_the_net_sees_is_the_noise_and_fresh_noise(size):
    npnet = small_net()
    calls = recorded(npnet)
    prompt = small_inputs(1)[1]
    noise = white(1, *size)
    noises = (noise, noise, 1.001 * noise)
    for x in noises:
        golden_noise(npnet, x, prompt)
    fresh = [z.double() - integrated(integrated(x, 2, 16), 3, 16) for x, (z, _) in zip(noises, calls, strict=True)]
    assert torch.equal(fresh[0], fresh[1])
    assert (fresh[0] - fresh[2]).abs().max() > 0.1  # other noise, other fresh noise


def test_carry_back_is_the_transposed_way():
    """⟨A x Aᵀ, d⟩ = ⟨x, Aᵀ d A⟩."""
    x, d = white(1, 33, 77), white(1, 16, 16, seed=1)
    there = to_square(x, 16, torch.zeros(1, 4, 16, 16))
    assert float((there * d).sum()) == pytest.approx(float((x * carry_back(d, 33, 77)).sum()), rel=1e-4)


# --- a pure function of its arguments


@settings(max_examples=25)
@given(height=st.integers(1, 40), width=st.integers(1, 40), batch=st.integers(1, 3), channels=st.sampled_from([1, 4]))
@example(height=1, width=1, batch=2, channels=4)
@example(height=8, width=8, batch=2, channels=4)
@example(height=16, width=16, batch=3, channels=1)
@example(height=33, width=77, batch=2, channels=4)
@example(height=7, width=13, batch=3, channels=1)
def test_each_image_of_a_batch_is_that_image_alone_to_the_bit(height, width, batch, channels):
    npnet = small_net(channels=channels, prompt_tokens=3, prompt_dim=5)
    generator = torch.Generator().manual_seed(height * width)
    noise = torch.randn(batch, channels, height, width, generator=generator)
    prompt = torch.randn(batch, 3, 5, generator=generator)
    before = noise.clone(), prompt.clone()
    golden = golden_noise(npnet, noise, prompt)
    assert golden.shape == noise.shape
    assert golden.dtype == noise.dtype
    assert not torch.equal(golden, noise)
    assert torch.equal(noise, before[0])
    assert torch.equal(prompt, before[1])
    for i in range(batch):
        alone = golden_noise(npnet, noise[i : i + 1].clone(), prompt[i : i + 1].clone())
        assert torch.equal(alone, golden[i : i + 1])


def test_neither_reads_nor_changes_the_global_generator():
    npnet, noise, prompt = small_net(), white(2, 24, 40), small_inputs()[1]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = golden_noise(npnet, noise, prompt)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(golden_noise(npnet, noise, prompt), first)


def test_the_same_in_inference_mode_and_after_it():
    npnet, noise, prompt = small_net(), white(2, 21, 43), small_inputs()[1]  # a size that no other test has cached
    with torch.inference_mode():
        inside = golden_noise(npnet, noise, prompt)
    outside = golden_noise(npnet, noise, prompt)
    assert torch.equal(inside, outside)
    assert not outside.requires_grad


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_memory_layout_does_not_matter(size):
    npnet, prompt = small_net(), small_inputs()[1]
    noise = white(2, *size)
    expected = golden_noise(npnet, noise, prompt)
    assert torch.equal(golden_noise(npnet, noise.to(memory_format=torch.channels_last), prompt), expected)
    spread = torch.stack([noise, noise], -1)[..., 0]
    assert torch.equal(golden_noise(npnet, spread, prompt), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_the_type_of_the_noise_is_kept_and_fp32_computes(dtype, size):
    npnet, prompt = small_net(), small_inputs()[1]
    noise = white(2, *size).to(dtype)
    golden = golden_noise(npnet, noise, prompt.to(dtype))
    assert golden.dtype == dtype
    assert torch.equal(golden, golden_noise(npnet, noise.float(), prompt.to(dtype).float()).to(dtype))
    assert golden_noise(npnet, noise, prompt, strength=0.5).dtype == dtype


# --- strength


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_strength_leads_from_the_noise_through_the_golden_noise(size):
    npnet, noise, prompt = small_net(), white(2, *size), small_inputs()[1]
    golden = golden_noise(npnet, noise, prompt)
    untouched = golden_noise(npnet, noise, prompt, strength=0)
    assert torch.equal(untouched, noise)
    assert untouched.data_ptr() != noise.data_ptr()
    assert torch.equal(golden_noise(npnet, noise, prompt, strength=1.0), golden)
    for strength in (1e-3, 0.25, 0.5, 1.5, 2):
        expected = noise.double() + strength * (golden.double() - noise.double())
        assert difference(golden_noise(npnet, noise, prompt, strength=strength), expected) < 1e-6


# --- prompts of any length


@pytest.fixture(scope="module")
def long_net():
    return small_net(prompt_tokens=77, prompt_dim=4)


def tokens(count: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, count, 4, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_truncate_takes_the_first_77_tokens(long_net, size):
    noise, prompt = white(2, *size), tokens(100)
    golden = golden_noise(long_net, noise, prompt)
    assert torch.equal(golden, golden_noise(long_net, noise, prompt[:, :77]))
    assert not torch.equal(golden, golden_noise(long_net, noise, prompt, long_prompt="average"))
    assert not torch.equal(golden, golden_noise(long_net, noise, prompt, long_prompt="recurse"))


@pytest.mark.parametrize("mode", ["truncate", "average", "recurse"])
@pytest.mark.parametrize("count", [1, 60, 77])
def test_short_prompts_are_filled_up_with_zeros_in_every_mode(long_net, mode, count):
    noise, prompt = white(1, 24, 40), tokens(count)
    filled = torch.cat([prompt, torch.zeros(1, 77 - count, 4)], 1)
    assert torch.equal(golden_noise(long_net, noise, prompt, long_prompt=mode), golden_noise(long_net, noise, filled))


def pieces(prompt: Tensor) -> list[Tensor]:
    """77 tokens each, the last filled up with zeros."""
    count = -(-prompt.shape[1] // 77)
    filled = torch.zeros(len(prompt), 77 * count, 4)
    filled[:, : prompt.shape[1]] = prompt
    return [filled[:, 77 * i : 77 * (i + 1)] for i in range(count)]


@pytest.mark.parametrize("count", [100, 154, 200])
@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_average_is_the_mean_over_the_pieces(long_net, size, count):
    noise, prompt = white(2, *size), tokens(count, batch=2)
    goldens = [golden_noise(long_net, noise, piece) for piece in pieces(prompt)]
    golden = golden_noise(long_net, noise, prompt, long_prompt="average")
    assert difference(golden, torch.stack(goldens).mean(0)) < 1e-6


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_the_average_of_two_equal_pieces_is_either(long_net, size):
    noise, prompt = white(2, *size), tokens(77)
    twice = golden_noise(long_net, noise, prompt.repeat(1, 2, 1), long_prompt="average")
    assert torch.equal(twice, golden_noise(long_net, noise, prompt))


@pytest.mark.parametrize("count", [100, 154, 200])
def test_recurse_gives_each_piece_the_golden_noise_of_the_one_before(long_net, count):
    noise, prompt = white(1, 16, 16), tokens(count)
    expected = noise
    with torch.no_grad():
        for piece in pieces(prompt):
            expected = long_net(expected, piece)
    assert difference(golden_noise(long_net, noise, prompt, long_prompt="recurse"), expected) < 1e-5


def test_recurse_draws_fresh_noise_for_every_piece(long_net):
    npnet = small_net(prompt_tokens=77, prompt_dim=4)
    calls = recorded(npnet)
    golden_noise(npnet, white(1, 24, 40), tokens(154), long_prompt="recurse")
    golden_noise(npnet, white(1, 24, 40), tokens(154), long_prompt="average")
    recurse, average = calls[:2], calls[2:]
    assert not torch.equal(recurse[0][0], recurse[1][0])
    assert torch.equal(average[0][0], average[1][0])


def test_one_prompt_serves_all_and_several_serve_each():
    npnet, noise = small_net(), white(3, 24, 40)
    prompt = small_inputs(3)[1]
    each = golden_noise(npnet, noise, prompt)
    for i in range(3):
        one = golden_noise(npnet, noise, prompt[i : i + 1])
        assert torch.equal(one[i], each[i])
        assert torch.equal(one, golden_noise(npnet, noise, prompt[i : i + 1].repeat(3, 1, 1)))


# --- what it refuses


def with_value(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


NOISE, PROMPT = small_inputs(2)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (torch.zeros(1, 16, 16, 16), r"Noise of shape \[1, 16, 16, 16\] .*\[batch, 4, height, width\] was expected"),
        (torch.zeros(1, 4, 5, 16, 16), r"Noise of shape \[1, 4, 5, 16, 16\]"),
        (torch.zeros(4, 16, 16), r"Noise of shape \[4, 16, 16\]"),
        (torch.zeros(0, 4, 16, 16), r"Noise of shape \[0, 4, 16, 16\]"),
        (torch.zeros(1, 4, 0, 16), r"Noise of shape \[1, 4, 0, 16\]"),
        (torch.zeros(1, 4, 16, 16, dtype=torch.int64), r"int64"),
        (with_value(NOISE, NAN), "noise has NaN or infinite"),
        (with_value(NOISE, -INF), "noise has NaN or infinite"),
    ],
)
def test_noise_that_does_not_fit_is_refused(noise, words):
    with pytest.raises(InputError, match=words + r".*: \w+ .*\.$"):
        golden_noise(small_net(), noise, PROMPT[:1])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (torch.zeros(7, 12), r"shape \[7, 12\] came, \[batch, tokens, 12\] was expected"),
        (torch.zeros(2, 0, 12), r"shape \[2, 0, 12\]"),
        (torch.zeros(1, 77, 768), "768 wide came, this net was trained on 12"),
        (torch.zeros(1, 154, 4096), "4096 wide came, this net was trained on 12"),
        (torch.zeros(3, 7, 12), "3 prompt embeddings came for 2 noises"),
        (torch.zeros(0, 7, 12), "0 prompt embeddings came for 2 noises"),
        (with_value(PROMPT, NAN), "prompt embedding has NaN or infinite"),
        (with_value(PROMPT, INF), "prompt embedding has NaN or infinite"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompt, words):
    with pytest.raises(InputError, match=words + r".*: \w+ .*\.$"):
        golden_noise(small_net(), NOISE, prompt)


@pytest.mark.parametrize("strength", [2.01, -0.1, NAN, INF])
def test_strength_outside_0_to_2_is_refused(strength):
    with pytest.raises(InputError, match=r"strength of .* came, 0 to 2 was expected: .*\.$"):
        golden_noise(small_net(), NOISE, PROMPT, strength=strength)


def test_wrong_input_is_refused_at_strength_0_too():
    with pytest.raises(InputError, match="768 wide"):
        golden_noise(small_net(), NOISE, torch.zeros(1, 77, 768), strength=0)


def test_an_unknown_mode_is_refused():
    with pytest.raises(InputError, match=r"long_prompt='pad' came: choose one of truncate, average, recurse\.$"):
        golden_noise(small_net(), NOISE, PROMPT, long_prompt="pad")


def test_golden_noise_that_is_not_finite_is_refused():
    npnet = small_net()
    npnet.beta.data.fill_(3e38)
    with pytest.raises(InputError, match=r"golden noise has NaN or infinite values: use .*\.$"):
        golden_noise(npnet, NOISE, PROMPT)


def test_what_overflows_between_two_pieces_is_refused_too():
    npnet = small_net(prompt_tokens=7)
    npnet.beta.data.fill_(3e38)
    with pytest.raises(InputError, match="golden noise has NaN or infinite values"):
        golden_noise(npnet, NOISE, PROMPT.repeat(1, 2, 1), long_prompt="recurse")
