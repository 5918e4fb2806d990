"""FID against scipy, pytorch-fid's own network and torch's resizing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from npnet_core.errors import InputError
from tests import tiny_pipelines
from tests.tiny_scorers import images, write_clip
from trainer.commands.cli import main
from trainer.data.images import read_image, write_image
from trainer.evaluation.fid import find_pictures, frechet_distance, inception_features, load_inception, square


def features(count: int, width: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((count, width)) @ rng.standard_normal((width, width)) * scale + seed)


@pytest.mark.parametrize(("n", "m", "width"), [(200, 150, 6), (40, 30, 12)])
def test_frechet_distance_is_that_of_two_gaussians(n, m, width):
    a, b = features(n, width, 0), features(m, width, 1, 2.0)
    cov_a, cov_b = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(cov_a + cov_b - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_in_closed_form():
    """A shift costs its square; a scale s costs (s − 1)² times the variance. Also with fewer images than features."""
    for x in (features(50, 8, 0), features(10, 32, 3)):
        variance = x.var(0).sum().item()
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8 * variance)
        assert frechet_distance(x, x + 3) == pytest.approx(9 * x.shape[1], rel=1e-6)
        centred = x - x.mean(0)
        assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * variance, rel=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (299, 299), (1024, 640)])
def test_pictures_are_resized_as_torch_does_it_with_antialiasing(height, width):
    """PIL's bicubic filter has a = −0.5, as torch's antialiased one, which must not round either."""
    image = images(1, height, width)[0]
    channels = image.movedim(-1, 0)[None]
    expected = torch.nn.functional.interpolate(channels, (299, 299), mode="bicubic", antialias=True).clamp(0, 1)
    assert (square(image) - (expected[0] * 255 - 128) / 128).abs().max() < 2e-3


# -- the network ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Random weights for FID's Inception, in a file like the published one, and pytorch-fid's own network with them."""
    inception = pytest.importorskip("pytorch_fid.inception")
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.manual_seed(0)

    def random_weights(url, progress):
        state = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None).state_dict()
        blocks = {"Mixed_7b": inception.FIDInceptionE_1(1280), "Mixed_7c": inception.FIDInceptionE_2(2048)}
        blocks |= {"Mixed_5b": inception.FIDInceptionA(192, 32), "Mixed_6b": inception.FIDInceptionC(768, 128)}
        for name, block in blocks.items():
            state |= {f"{name}.{key}": value for key, value in block.state_dict().items()}
        for value in state.values():
            if value.ndim > 1:  # so that features neither vanish nor explode
                value.normal_(std=(2 / value[0].numel()) ** 0.5)
        # as published: without the counters of batch norms
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        torch.save(state, path)
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", random_weights)
        network = inception.InceptionV3([3], resize_input=False).eval()
    return path, network


def test_features_are_pytorch_fid_s(tmp_path, weights):
    """On bytes v its input is 2 v/255 − 1 and clean-fid's (v − 128)/128, so it is given v/256."""
    path, network = weights
    pictures = images(3, 299, 299)
    for i, picture in enumerate(pictures):
        write_image(tmp_path / f"{i}.png", picture, {})
    ours = inception_features(load_inception(path), find_pictures(tmp_path), torch.device("cpu"), "features")
    expected = network((pictures * 255 / 256).movedim(-1, 1))[0].flatten(1)
    assert ours.shape == (3, 2048)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * expected.std().item())
    assert (ours[0] - ours[1]).abs().max() > 0.1 * expected.std()


def test_the_command_reports_it(tmp_path, weights):
    """Against copies of the standard images, whose FID is then 0."""
    sd, clip = tiny_pipelines.tiny_sd(tmp_path / "sd"), write_clip(tmp_path / "clip")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\na green circle\n")
    argv = ["evaluate", "--base", sd, "--prompts", tmp_path / "prompts.txt", "--methods", "inversion", "--steps", 2]
    argv += ["--size", "64x64", "--scorer", f"clipscore={clip}", "--out", tmp_path / "out", "--device", "cpu"]
    assert main(list(map(str, argv))) == 0
    (setting,) = (tmp_path / "out" / "images").iterdir()
    shutil.copytree(setting / "standard", tmp_path / "reference")
    assert main([*map(str, argv), "--fid", str(tmp_path / "reference"), "--fid-weights", str(weights[0])]) == 0
    fid = json.loads((tmp_path / "out" / "results.json").read_text())["about"]["fid"]
    assert list(fid[setting.name]) == ["standard", "inversion"]
    assert fid[setting.name]["standard"] == pytest.approx(0, abs=1e-6)
    assert fid[setting.name]["inversion"] > 1e-4


# -- wrong input ------------------------------------------------------------------------------------------------------


def test_weights_are_named_by_the_user(tmp_path, weights):
    with pytest.raises(InputError, match=r"needs Inception's weights and no file came: get pt_inception-\S+ from"):
        load_inception(None)
    with pytest.raises(InputError, match=r"needs Inception's weights and \S+nowhere.pth came"):
        load_inception(tmp_path / "nowhere.pth")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold the weights of FID's Inception"):
        load_inception(tmp_path / "other.pth")


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "gif", "avif", "jp2", "ppm", "pgm", "tga"])
def test_pictures_have_many_names(tmp_path, suffix):
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        Image.new("L", (16, 16), 128).save(path)
    assert find_pictures(tmp_path) == paths
    assert read_image(paths[0]).mean().item() == pytest.approx(128 / 255, abs=0.02)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        find_pictures(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    write_image(tmp_path / "a.PNG", images(1, 16, 16)[0], {})
    (tmp_path / "._a.PNG").touch()  # macOS's, beside it
    with pytest.raises(InputError, match="has 1 pictures"):
        find_pictures(tmp_path)
