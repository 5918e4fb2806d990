"""Settings of a fit are values: from Python they do what they do from the command line."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest
import safetensors.torch
import torch

from npnet_core.errors import InputError
from tests.tiny_fit import make_dataset, options
from trainer.commands.fit import Options, run, settings_from
from trainer.fitting.fit import fit
from trainer.fitting.settings import NetSettings, NoisePairs, Reward, Runtime, Settings, Training

PARTS = (NoisePairs, Reward, NetSettings, Training, Runtime)
OF_ONE_OBJECTIVE = {"dataset": Path | None, "objective": typing.Literal["pairs", "reward"]}  # as options
SWIN = NetSettings(swin_size=16, swin_dim=8, swin_depths=(1, 1), swin_heads=(1, 2), swin_window=2)


def test_every_option_reaches_the_fit_with_its_type_and_default():
    named = [field.name for part in PARTS for field in dataclasses.fields(part)]
    assert sorted({*named, "out"}) == sorted(field.name for field in dataclasses.fields(Options))
    hints = typing.get_type_hints(Options)
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    for part in PARTS:
        for name, hint in typing.get_type_hints(part).items():
            assert hints[name] == OF_ONE_OBJECTIVE.get(name, hint), name
        for field in dataclasses.fields(part):
            if field.default is not dataclasses.MISSING and field.name != "objective":
                assert defaults[field.name] == field.default, field.name


def test_from_python_and_from_the_command_line_alike(tmp_path):
    """To the bit, and each goes on with the other's folder."""
    dataset = make_dataset(tmp_path / "pairs")
    pairs = NoisePairs(dataset, scorer=("none",), validation=0.2)
    training, runtime = Training(epochs=4, batch=16, lr=1e-3), Runtime(device="cpu", log_every=1)
    here = Settings(tmp_path / "python", pairs, SWIN, training, runtime)
    assert settings_from(options(dataset, tmp_path / "python")) == here
    path = fit(here)
    run(options(dataset, tmp_path / "command"))
    one, two = (safetensors.torch.load_file(out / "npnet.safetensors") for out in (path.parent, tmp_path / "command"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    before = path.stat().st_mtime_ns
    run(options(dataset, tmp_path / "python"))
    assert path.stat().st_mtime_ns == before


def adapter(training: Training):
    return lambda: Settings(Path("run"), NoisePairs(Path("pairs")), NetSettings(arch="adapter"), training)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Training(lr=2.0), "--lr 2.0 came: give at most 1"),
        (lambda: Runtime(keep=0), "--keep 0 came: give at least 1"),
        (lambda: NetSettings(arch="unet", swin_dim=8), "--swin-dim came, which a net of the architecture unet"),
        (lambda: NetSettings(arch="npnet", widths=(8,)), "--widths came, which a net of the architecture npnet"),
        (lambda: NetSettings(arch="adapter", rank=-3), "--rank -3 came: give at least 0"),
        (adapter(Training(compile=True)), "--compile came for an adapter"),
    ],
)
def test_what_makes_no_run_is_no_value(make, words):
    with pytest.raises(InputError, match=words):
        make()
