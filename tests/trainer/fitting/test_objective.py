"""The loop knows of an objective what ``Objective`` says and no more: one without any dataset is learnt too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from npnet_core.config import UNetConfig
from npnet_core.errors import InputError
from trainer.distributed import Process
from trainer.fitting.build_net import new_npnet
from trainer.fitting.divergence import diverged
from trainer.fitting.folder import check_folder, save_settings
from trainer.fitting.metrics import Losses, totals
from trainer.fitting.noise_pairs import errors
from trainer.fitting.resume import resume
from trainer.fitting.run import Run
from trainer.fitting.settings import Runtime, Settings, Training
from trainer.fitting.training import train, validate

CPU = Process(0, 1, torch.device("cpu"))


class Brighter:
    """Whatever the noise, its golden noise is 0.2 higher; samples are seeds."""

    unit = "noise"
    training = range(64)
    validation = range(64, 80)
    hash = "brighter"

    def prepare(self, samples: Sequence[int]) -> list[tuple[list[int], Tensor]]:
        noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in samples]
        return [(list(samples), torch.stack(noise))]

    def losses(self, model, batch) -> Losses:
        samples, noise = batch
        change = model(noise, torch.zeros(len(noise), 3, 8)) - noise
        return Losses(samples, (change - 0.2).square().mean((1, 2, 3)), torch.full((len(noise),), 0.04))

    def metrics(self, name: str, total: Tensor) -> dict[str, float]:
        return errors(name, total)

    @torch.no_grad()
    def validate(self, npnet, process: Process, batch: int, threads: int) -> dict[str, float]:
        return self.metrics("validation", totals([self.losses(npnet, each) for each in self.prepare(self.validation)]))

    def show(self, npnet, step: int, rows: Sequence[dict]) -> None:
        pass

    def stop(self, rows: Sequence[dict]) -> None:
        pass

    def progress(self, metrics: dict[str, float]) -> str:
        return f"{metrics['train_mse']:.3f}"


@dataclass(frozen=True)
class Brightening:
    """The objective's settings."""

    by: float = 0.2


def settings_of(out: Path, training: Training, **settings) -> Settings:
    return Settings(out, Brightening(**settings), training=training, runtime=Runtime(device="cpu"))


def run_of(out: Path, epochs: int) -> Run:
    npnet = new_npnet(UNetConfig(family="sdxl", channels=4, resolution=8, prompt_dim=8, widths=(32,)), seed=0)
    training = Training(epochs=epochs, batch=16, lr=3e-3)
    return Run(
        settings=settings_of(out, training),
        process=CPU,
        objective=Brighter(),
        npnet=npnet,
        average=None,
        optimizer=torch.optim.AdamW(npnet.parameters(), lr=training.lr),
    )


def test_another_objective_is_learnt_and_goes_on(tmp_path):
    run = run_of(tmp_path, epochs=8)
    assert validate(run)["validation_explained"] == pytest.approx(0, abs=1e-4)  # a new net is the identity
    train(run, resume(run), None)
    learnt = validate(run)["validation_explained"]
    assert learnt > 0.9
    again = run_of(tmp_path, epochs=8)
    assert resume(again) == again.steps == 32
    assert validate(again)["validation_explained"] == learnt


def test_samples_are_called_what_the_objective_calls_them(tmp_path):
    losses = [Losses([0, 1], torch.tensor([math.nan, math.inf]), torch.zeros(2))]
    assert diverged(run_of(tmp_path, epochs=1), 1, losses).startswith("Step 1 has NaN or infinity for every noise:")


def test_the_folder_of_another_objective_is_compared_by_its_own_settings(tmp_path):
    run = run_of(tmp_path, epochs=1)
    save_settings(run.settings)
    train(run, 0, None)
    check_folder(run.settings)
    with pytest.raises(InputError, match=r"holds another run \(by 0\.2 there and 0\.3 here\)"):
        check_folder(settings_of(tmp_path, run.settings.training, by=0.3))
