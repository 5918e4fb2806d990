"""NPNet against what the published network computes, timm's Swin, diffusers' AdaGroupNorm and closed forms."""

from __future__ import annotations

import json
import os
import platform
import sys

import pytest
import torch
from diffusers.models.normalization import AdaGroupNorm
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer

from npnet_core.config import MENDED, PUBLISHED, NPNetConfig
from npnet_core.errors import InputError
from npnet_core.layers import TextTerm, decompose
from npnet_core.model import NPNet
from npnet_core.swin import Swin
from tests.seeded import (
    SMALL,
    VARIANTS,
    Casting,
    difference,
    published_inputs,
    published_net,
    published_outputs,
    published_shapes,
    small_inputs,
    small_net,
)

# Another LAPACK returns singular vectors of other signs, which the published weights see.
SAME_LAPACK = sys.platform == "linux" and platform.machine() == "x86_64" and len(os.sched_getaffinity(0)) > 1
PARITY = 1e-5 if SAME_LAPACK else 1e-3


@pytest.fixture
def two_threads():
    """As many as the references were made with: LAPACK rounds otherwise with another number, and where two singular
    values nearly coincide that turns their vectors; the result moves by up to 5e-5."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# --- the published network


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("two_threads")
def test_golden_and_terms_are_the_published_ones(variant, batch):
    npnet, expected = published_net(variant), published_outputs(variant)
    noise, prompt = (x.repeat(2, *[1] * (x.ndim - 1))[:batch] for x in published_inputs(variant))
    expected = {key: value.repeat(2, 1, 1, 1)[:batch] for key, value in expected.items()}
    terms = npnet.terms(noise, prompt)
    assert difference(npnet(noise, prompt), expected["golden"]) < PARITY
    assert difference(terms.svd, expected["svd_branch"]) < PARITY
    assert difference(terms.text, expected["text_term"]) < 1e-5
    assert difference(terms.residual, expected["residual_branch"]) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_calls_are_bitwise_equal_and_leave_the_input_alone(variant):
    noise, prompt = published_inputs(variant)
    before = noise.clone(), prompt.clone()
    assert torch.equal(published_net(variant)(noise, prompt), published_net(variant)(noise, prompt))
    assert torch.equal(noise, before[0])
    assert torch.equal(prompt, before[1])


def test_a_batch_is_its_images_one_by_one():
    noise, prompt = published_inputs("hunyuan-dit")
    npnet = published_net("hunyuan-dit")
    singles = torch.cat([npnet(noise[i : i + 1], prompt[i : i + 1]) for i in range(2)])
    assert difference(npnet(noise, prompt), singles) < 1e-5


def test_parameters_are_the_published_ones_without_the_unused():
    sizes = {key: torch.Size(shape).numel() for key, shape in published_shapes().items()}

    def published(prefix: str) -> int:
        return sum(size for key, size in sizes.items() if key.startswith(prefix) and ".bn.running" not in key)

    npnet = published_net("sdxl")
    ours = {name: sum(p.numel() for p in module.parameters()) for name, module in npnet.named_children()}
    assert ours["text_term"] == published("text_embedding.") == 1_261_576
    assert published("unet_embedding.") == 28_288_401  # figures read in the published file
    assert ours["residual_branch"] == 28_288_401 - (768 + 1) * 1000  # without ImageNet's classifier
    assert ours["svd_branch"] == published("unet_svd.") - published("unet_svd.bn.")
    assert not any("bn" in key or "head.fc" in key for key in npnet.state_dict())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_devices_agree():
    noise, prompt = published_inputs("sdxl")
    expected = published_net("sdxl")(noise, prompt)
    npnet = NPNet(PUBLISHED["sdxl"]).eval().requires_grad_(False)
    npnet.load_state_dict(published_net("sdxl").state_dict())
    result = npnet.to("cuda")(noise.to("cuda"), prompt.to("cuda"))
    assert result.device.type == "cuda"
    assert difference(result.cpu(), expected) < 1e-4


# --- the blocks


@pytest.mark.parametrize(
    ("size", "window", "depths", "heads"),
    [
        (64, 4, (2, 2), (2, 4)),
        (32, 4, (2, 2, 2), (2, 4, 8)),  # one window covers the second map, and is larger than the third
        (56, 7, (3,), (4,)),
    ],
)
def test_swin_is_timms(size, window, depths, heads):
    torch.manual_seed(0)
    options = {"img_size": size, "embed_dim": 16, "depths": depths, "num_heads": heads, "window_size": window}
    theirs = SwinTransformer(num_classes=0, drop_path_rate=0.3, **options).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # biases and norms start trivial
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    ours = Swin(size, 16, depths, heads, window, drop_path=0.3).eval()
    weights = theirs.state_dict()
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].flatten(1)
    ours.load_state_dict(weights)
    picture = torch.randn(3, 3, size, size)
    with torch.no_grad():
        assert difference(ours(picture), theirs.forward_features(picture)) < 1e-5
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in theirs.layers for block in stage.blocks]
    assert [block.drop_path for stage in ours.layers for block in stage.blocks] == pytest.approx(rates)


def test_text_term_is_diffusers_adagroupnorm():
    torch.manual_seed(0)
    ours, theirs = TextTerm(4, 7, 12), AdaGroupNorm(7 * 12, 4, num_groups=1, eps=1e-6)
    theirs.load_state_dict(ours.state_dict())
    noise, prompt = small_inputs()
    noise = 0.01 * noise + 0.02  # so small that eps counts
    assert difference(ours(noise, prompt), theirs(noise, prompt.flatten(1))) < 1e-5


def tiled(noise):
    """[B, 4, R, R] → the [B, 2R, 2R] matrix [[c0, c1], [c2, c3]]."""
    return torch.cat([torch.cat([noise[:, 0], noise[:, 1]], -1), torch.cat([noise[:, 2], noise[:, 3]], -1)], -2)


def test_the_singular_value_branch_changes_singular_values_only():
    npnet, (noise, prompt) = small_net(), small_inputs()
    predicted = []
    npnet.svd_branch.head.register_forward_hook(lambda module, args, output: predicted.append(output))
    with torch.no_grad():
        matrix, result = tiled(noise), tiled(npnet.terms(noise, prompt).svd)
    assert predicted[0].abs().min() > 1e-3
    expected = (torch.linalg.svdvals(matrix) + predicted[0]).abs().sort(descending=True).values
    assert difference(torch.linalg.svdvals(result), expected) < 1e-5
    # with the same vectors, AᵀB and ABᵀ are symmetric
    for product in (matrix.mT @ result, matrix @ result.mT):
        assert difference(product, product.mT) < 1e-5


@pytest.mark.parametrize("fixed_signs", [False, True])
@settings(max_examples=40)
@given(tile=st.integers(1, 3), resolution=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_decompose_is_a_decomposition_of_the_tiled_noise(fixed_signs, tile, resolution, seed):
    noise = torch.randn(2, tile**2, resolution, resolution, generator=torch.Generator().manual_seed(seed))
    u, s, vh = decompose(noise, tile, fixed_signs)
    rows = [torch.cat([noise[:, i * tile + j] for j in range(tile)], -1) for i in range(tile)]
    assert difference((u * s[:, None]) @ vh, torch.cat(rows, -2)) < 1e-5


def test_a_decomposition_made_before_gives_the_same():
    npnet, (noise, prompt) = small_net(), small_inputs()
    assert torch.equal(npnet(noise, prompt, decompose(noise, 2)), npnet(noise, prompt))


# --- quirks


def features_and_residual(npnet):
    """The Swin features [B, g, g, F] of one forward pass, and the residual x̂ [B, C, R, R] made of them."""
    features = []
    npnet.residual_branch.swin.register_forward_hook(lambda module, args, output: features.append(output))
    with torch.no_grad():
        residual = npnet.terms(*small_inputs()).residual
    return features[0], residual


@pytest.mark.parametrize("misread", [True, False])
def test_swin_channels_are_misread_or_read(misread):
    npnet = small_net(misread_swin=misread)
    features, residual = features_and_residual(npnet)  # [2, 8, 8, 32], [2, 4, 16, 16]
    weight, bias = npnet.residual_branch.up.weight, npnet.residual_branch.up.bias
    for y, x in [(0, 0), (3, 5), (8, 1), (15, 15)]:
        # misread: the axes are taken for (channel, row, column), and the 32 columns are thinned out to 16
        vector = features[:, :, y // 2, 2 * x] if misread else features[:, y // 2, x // 2, :]
        assert difference(residual[:, :, y, x], vector @ weight.T + bias) < 1e-5


@pytest.fixture
def other_lapack(monkeypatch):
    """Call it, and from then on torch.linalg.svd returns every second pair of singular vectors with the other sign."""

    def flip():
        original = torch.linalg.svd

        def svd(matrix):
            u, s, vh = original(matrix)
            sign = 1 - 2 * (torch.arange(s.shape[-1]) % 2)
            return u * sign, s, vh * sign[:, None]

        monkeypatch.setattr(torch.linalg, "svd", svd)

    return flip


@pytest.mark.parametrize("fixed_signs", [True, False])
def test_signs_of_singular_vectors_matter_unless_fixed(fixed_signs, other_lapack):
    npnet, (noise, prompt) = small_net(fixed_signs=fixed_signs), small_inputs()
    before = npnet(noise, prompt)
    other_lapack()
    after = npnet(noise, prompt)
    assert torch.equal(before, after) if fixed_signs else difference(after, before) > 1e-4


def test_the_mended_config_switches_both_quirks_off():
    config = NPNetConfig(**MENDED)
    assert not config.misread_swin
    assert config.fixed_signs
    assert NPNetConfig().misread_swin  # the published nets have both
    assert not NPNetConfig().fixed_signs


# --- branches


BRANCHES = ("svd_branch", "text_term", "residual_branch")


@pytest.mark.parametrize("kept", [BRANCHES, *[(a,) for a in BRANCHES], BRANCHES[:2], BRANCHES[1:], BRANCHES[::2]])
def test_golden_is_the_weighted_sum_of_the_branches_kept(kept):
    npnet = small_net(**{name: name in kept for name in BRANCHES})
    noise, prompt = small_inputs()
    assert {key.split(".")[0] for key in npnet.state_dict()} - {"alpha", "beta"} == set(kept)
    terms = dict(zip(BRANCHES, npnet.terms(noise, prompt), strict=True))
    assert {name for name, term in terms.items() if term is not None} == set(kept)
    expected = 0
    if "svd_branch" in kept:
        expected = expected + terms["svd_branch"]
    if "text_term" in kept:
        expected = expected + torch.tanh(npnet.alpha / 2) * terms["text_term"]  # 2·sigmoid(a) − 1
    if "residual_branch" in kept:
        expected = expected + npnet.beta * terms["residual_branch"]
    assert difference(npnet(noise, prompt), expected) < 1e-5


def test_the_residual_branch_sees_the_text_term():
    noise, prompt = small_inputs()
    with_text, without = small_net(), small_net(text_term=False)
    without.residual_branch.load_state_dict(with_text.residual_branch.state_dict())
    terms = with_text.terms(noise, prompt)
    assert torch.equal(without.terms(noise + terms.text, prompt).residual, terms.residual)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_new_net_is_the_identity_to_the_bit(bf16):
    npnet, (noise, prompt) = NPNet(NPNetConfig(**SMALL)).eval(), small_inputs()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert torch.equal(npnet(noise, prompt), noise)


# --- training


def test_stochastic_depth_only_while_training():
    npnet, inputs = small_net(drop_path=0.9), small_inputs()
    torch.manual_seed(0)
    assert torch.equal(npnet(*inputs), npnet(*inputs))
    npnet.train()
    assert not torch.equal(npnet(*inputs), npnet(*inputs))
    without = small_net(drop_path=0.0)
    assert torch.equal(without.train()(*inputs), small_net(drop_path=0.9).eval()(*inputs))


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    block = small_net(drop_path=0.25).residual_branch.swin.layers[-1].blocks[-1].train()
    torch.manual_seed(0)
    kept = block.keep(torch.ones(20_000, 2, 2, 3)).flatten(1)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert sorted(set(kept[:, 0].tolist())) == pytest.approx([0, 1 / 0.75])
    assert float(kept.mean()) == pytest.approx(1, abs=0.02)  # 5 standard errors


def test_every_parameter_learns_even_after_inference_mode():
    npnet, (noise, prompt) = small_net(**MENDED), small_inputs()
    with torch.inference_mode():
        npnet(noise, prompt)
    npnet.train()(noise, prompt).square().mean().backward()
    still = [name for name, parameter in npnet.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not still


# --- weights that stay elsewhere until they are used


def test_weights_of_another_type_are_cast_where_they_are_used():
    plain, (noise, prompt) = small_net(), small_inputs()
    npnet = NPNet(plain.config, Casting).eval()
    npnet.load_state_dict(plain.state_dict())
    npnet.double()  # one parameter used as it is would make the result double, or fail
    result = npnet(noise, prompt)
    assert result.dtype == torch.float32
    assert difference(result, plain(noise, prompt)) < 1e-5


def test_every_layer_with_weights_comes_from_operations():
    npnet = NPNet(NPNetConfig(**SMALL), Casting)
    leaves = {type(module) for module in npnet.modules() if not list(module.children()) and list(module.parameters())}
    assert leaves == {Casting.Linear, Casting.LayerNorm}


# --- what it refuses


@pytest.mark.parametrize(
    ("noise", "prompt"),
    [
        ((2, 4, 16, 24), (2, 7, 12)),
        ((2, 16, 16, 16), (2, 7, 12)),
        ((4, 16, 16), (2, 7, 12)),
        ((2, 4, 16, 16), (1, 7, 12)),
        ((2, 4, 16, 16), (2, 8, 12)),
        ((2, 4, 16, 16), (2, 7, 13)),
    ],
)
def test_other_shapes_are_refused(noise, prompt):
    with pytest.raises(InputError, match=r"came to a net for .*: (use|give) "):
        small_net()(torch.randn(noise), torch.randn(prompt))


def test_a_config_survives_json():
    config = NPNetConfig(**SMALL, **MENDED, family="mine")
    assert NPNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "values",
    [
        {"channels": 5},
        {"channels": "4"},
        {"resolution": 0},
        {"resolution": 16.0},
        {"resolution": 6},  # 12 singular values, 8 heads
        {"prompt_dim": -1},
        {"swin_size": 0},
        {"swin_size": 20, "swin_depths": (2, 2), "swin_heads": (3, 6)},  # maps of 5 and 2.5 pixels
        {"swin_size": 256},  # 64 pixels in windows of 7
        {"swin_dim": 100},
        {"swin_depths": (2, 2)},
        {"swin_depths": (), "swin_heads": ()},
        {"swin_depths": (2, 0, 6, 2)},
        {"swin_heads": (0, 6, 12, 24)},
        {"drop_path": 1.0},
        {"drop_path": float("nan")},
        {"svd_branch": False, "text_term": False, "residual_branch": False},
    ],
)
def test_values_that_make_no_network_are_refused(values):
    with pytest.raises(InputError) as refusal:
        NPNetConfig(**values)
    assert any(name in str(refusal.value) for name in values)


def test_an_unknown_entry_is_refused():
    with pytest.raises(InputError, match="unknown entries colour, size"):
        NPNetConfig.from_dict({"size": 1, "colour": 2, "channels": 4})


@given(
    resolution=st.integers(0, 40),
    channels=st.integers(0, 10),
    swin_size=st.integers(0, 80),
    swin_window=st.integers(0, 9),
    stages=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=3),
)
def test_a_config_is_refused_or_makes_a_net_that_runs(resolution, channels, swin_size, swin_window, stages):
    try:
        config = NPNetConfig(
            resolution=resolution,
            channels=channels,
            prompt_tokens=2,
            prompt_dim=3,
            swin_size=swin_size,
            swin_dim=12,
            swin_depths=tuple(depth for depth, _ in stages),
            swin_heads=tuple(heads for _, heads in stages),
            swin_window=swin_window,
        )
    except InputError:
        return
    noise = torch.randn(1, channels, resolution, resolution)
    assert NPNet(config).eval()(noise, torch.randn(1, 2, 3)).shape == noise.shape
