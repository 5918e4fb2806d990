"""Where a fit starts: new nets, earlier ones, ImageNet's Swin."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.config import MENDED, NPNetConfig
from npnet_core.errors import InputError
from npnet_core.model import NPNet
from tests.tiny_fit import DIM, TOKENS, make_dataset, options
from trainer.commands.fit import run
from trainer.fitting.build_net import common_resolution, load_imagenet_swin, new_npnet

SMALL = {"swin_size": 32, "swin_dim": 16, "swin_depths": (2, 2), "swin_heads": (2, 4), "swin_window": 4}


def trained(path, **changes) -> NPNet:
    """A net with weights of its own, saved."""
    npnet = new_npnet(NPNetConfig(**{"resolution": 8, "prompt_tokens": TOKENS, **SMALL, **MENDED} | changes), seed=5)
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_npnet(npnet, path)
    return npnet


def fine_tune(tmp_path, **changes) -> NPNet:
    """One step at learning rate 0 from tmp_path / "earlier": what the net starts with."""
    data = make_dataset(tmp_path / "pairs", prompts=4)
    shape = dict.fromkeys(("swin_size", "swin_dim", "swin_depths", "swin_heads", "swin_window"))
    run(options(data, tmp_path / "run", epochs=1, lr=0.0, init=tmp_path / "earlier", **shape | changes))
    return load_npnet(tmp_path / "run" / "npnet.safetensors")


def test_fine_tuning_starts_from_the_file(tmp_path):
    earlier = trained(tmp_path / "earlier", prompt_dim=DIM, misread_swin=True, fixed_signs=False)
    npnet = fine_tune(tmp_path)
    assert npnet.config == earlier.config
    expected = earlier.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in npnet.state_dict().items())


def test_a_text_layer_of_another_width_is_made_anew_and_said_so(tmp_path, caplog):
    earlier = trained(tmp_path / "earlier", prompt_dim=DIM + 3, family="hunyuan-dit")
    caplog.set_level("INFO")
    npnet = fine_tune(tmp_path)
    assert f"{TOKENS} tokens, {DIM + 3} wide, and here are {TOKENS}, {DIM}: it is made anew" in caplog.text
    assert (npnet.config.family, npnet.config.prompt_dim) == ("sdxl", DIM)
    expected = earlier.state_dict()
    for key, value in npnet.state_dict().items():
        assert key.startswith("text_term.") or torch.equal(value, expected[key])


@pytest.mark.parametrize("tokens", [TOKENS + 2, TOKENS - 1])
def test_prompts_of_its_own_family_are_read_as_before(tmp_path, tokens):
    """However long the next dataset's are: shorter ones are filled up, longer ones cut, as golden_noise does."""
    earlier = trained(tmp_path / "earlier", prompt_dim=DIM, prompt_tokens=tokens)
    npnet = fine_tune(tmp_path)
    assert npnet.config == earlier.config
    expected = earlier.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in npnet.state_dict().items())


def test_other_channels_are_refused(tmp_path):
    trained(tmp_path / "earlier", prompt_dim=DIM, channels=16)
    with pytest.raises(InputError, match="16 latent channels and the dataset has 4"):
        fine_tune(tmp_path)


def test_stochastic_depth_can_be_chosen_anew(tmp_path):
    trained(tmp_path / "earlier", prompt_dim=DIM)
    assert fine_tune(tmp_path, drop_path=0.0).config.drop_path == 0.0


@pytest.fixture(scope="module")
def imagenet_swin():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    swin = timm.models.swin_transformer.SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4), num_classes=10
    )
    with torch.no_grad():
        for parameter in swin.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return swin.eval()


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_imagenet_s_swin_gives_timm_s_features(tmp_path, imagenet_swin, kind):
    path = tmp_path / f"swin.{kind}"
    state = {key: value.contiguous() for key, value in imagenet_swin.state_dict().items()}
    safetensors.torch.save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    npnet = new_npnet(NPNetConfig(resolution=8, prompt_tokens=2, prompt_dim=4, **SMALL, **MENDED), seed=0).eval()
    load_imagenet_swin(npnet, path)
    picture = torch.randn(2, 3, 32, 32)
    features = npnet.residual_branch.swin(picture)
    torch.testing.assert_close(features, imagenet_swin.forward_features(picture), atol=1e-5, rtol=1e-4)


def test_microsoft_s_own_file_gives_the_same_features(tmp_path, imagenet_swin):
    """Its stages end with what timm's begin with, and it keeps buffers; timm itself reads it the other way round."""
    theirs = {"head.weight": torch.ones(10, 32), "head.bias": torch.ones(10)}
    theirs["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    theirs["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    for key, value in imagenet_swin.state_dict().items():
        if not key.startswith("head."):
            theirs[key.replace("layers.1.downsample", "layers.0.downsample")] = value
    torch.save({"model": theirs}, tmp_path / "swin_tiny.pth")
    from timm.models.swin_transformer import checkpoint_filter_fn

    as_timm_reads_it = checkpoint_filter_fn({"model": theirs}, imagenet_swin)
    assert all(
        torch.equal(value, as_timm_reads_it[key])
        for key, value in imagenet_swin.state_dict().items()
        if "head" not in key
    )
    npnet = new_npnet(NPNetConfig(resolution=8, prompt_tokens=2, prompt_dim=4, **SMALL, **MENDED), seed=0).eval()
    load_imagenet_swin(npnet, tmp_path / "swin_tiny.pth")
    picture = torch.randn(2, 3, 32, 32)
    features = npnet.residual_branch.swin(picture)
    torch.testing.assert_close(features, imagenet_swin.forward_features(picture), atol=1e-5, rtol=1e-4)


def test_a_swin_that_does_not_fit_is_refused(tmp_path, imagenet_swin):
    state = {key: value.contiguous() for key, value in imagenet_swin.state_dict().items() if "norm" not in key}
    safetensors.torch.save_file(state, tmp_path / "swin")
    npnet = new_npnet(NPNetConfig(resolution=8, prompt_tokens=2, prompt_dim=4, **SMALL, **MENDED), seed=0)
    with pytest.raises(InputError, match="missing"):
        load_imagenet_swin(npnet, tmp_path / "swin")


def test_new_weights_follow_from_the_seed_and_leave_the_global_generator_alone():
    config = NPNetConfig(resolution=8, prompt_tokens=2, prompt_dim=4, **SMALL)
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    a, b, c = (new_npnet(config, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.randn(3), expected)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.parametrize(
    ("sizes", "resolution"),
    [
        ([(128, 128)] * 2 + [(104, 152)], 128),
        ([(12, 12)], 12),
        ([(104, 152)] * 2 + [(128, 128)], 128),  # 1216x832: as many pixels as 126²
        ([(80, 192)], 120),
        ([(2, 3)], 8),
    ],
)
def test_the_net_s_view_is_as_large_as_the_noises(sizes, resolution):
    assert common_resolution(sizes) == resolution
