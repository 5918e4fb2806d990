"""What a dataset says of how its pairs were made, and that a folder goes on with the same only."""

from __future__ import annotations

import dataclasses
import json

import pytest

from npnet_core.errors import InputError
from npnet_core.npd import read_manifest
from tests import tiny_pipelines
from trainer.bases import Schedule, fingerprint, load_base
from trainer.collecting.manifest import manifest, open_dataset
from trainer.collecting.recipe import Recipe

RECIPE = Recipe(Schedule("ddim", 2), height=64, width=64)


@pytest.fixture(scope="module")
def lcm(tmp_path_factory):
    """A network that is told its guidance."""
    return load_base(tiny_pipelines.tiny_sd(tmp_path_factory.mktemp("lcm") / "lcm", time_cond_proj_dim=16))


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return load_base(tiny_pipelines.tiny_sd(tmp_path_factory.mktemp("sd") / "sd", seed=1))


def test_how_guidance_enters(lcm, sd):
    assert manifest(sd, RECIPE, []).guidance == "cfg"
    assert manifest(lcm, RECIPE, []).guidance == "embedding"
    siblings = manifest(dataclasses.replace(lcm, sibling=sd), RECIPE, [])
    assert siblings.guidance == "cfg"
    assert siblings.redenoised_with == fingerprint(sd)[:16]
    assert siblings.recorded["redenoised_with_model"] == sd.source
    assert siblings.recorded["base_model"] == lcm.source


def test_a_sibling_is_compared(tmp_path, lcm, sd):
    settings = manifest(dataclasses.replace(lcm, sibling=sd), RECIPE, [])
    with open_dataset(tmp_path / "pairs", settings, worker="w"):
        pass
    with open_dataset(tmp_path / "pairs", settings, worker="w") as writer:
        assert writer.manifest == settings
    with pytest.raises(InputError, match=r"redenoised_with [0-9a-f]{16} and None"):
        open_dataset(tmp_path / "pairs", manifest(sd, RECIPE, []), worker="w")


def test_what_0_1_0_began_with_a_network_that_is_told_its_guidance_goes_on(tmp_path, lcm, sd):
    """It did not say so; the fingerprint tells that it is this very model."""
    settings = manifest(lcm, RECIPE, [])
    with open_dataset(tmp_path / "pairs", dataclasses.replace(settings, guidance="cfg"), worker="w"):
        pass
    assert json.loads((tmp_path / "pairs" / "manifest.json").read_text())["version"] == 1
    with open_dataset(tmp_path / "pairs", settings, worker="w"):
        pass
    assert read_manifest(tmp_path / "pairs").version == 1
    other = {**settings.recorded, "base_fingerprint": fingerprint(sd)[:16]}
    with pytest.raises(InputError, match=r"guidance cfg and embedding"):
        open_dataset(tmp_path / "pairs", dataclasses.replace(settings, recorded=other), worker="w")
