"""npnet fit --objective reward: without a dataset, through a base model, on preference models."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from npnet_core.golden import golden_noise
from npnet_core.preference import Scorer
from tests import tiny_scorers
from tests.tiny_pipelines import tiny_flux, tiny_sd, tiny_sdxl, tiny_z_image
from trainer import bases
from trainer.commands.cli import main
from trainer.distributed import Process
from trainer.fitting.fit import fit
from trainer.fitting.held_out import hacked
from trainer.fitting.history import read_history
from trainer.fitting.reward import prepare_reward, watching
from trainer.fitting.settings import NetSettings, Reward, Runtime, Settings, Training

PROMPTS = ["a red circle", "the blue square", "one green circle", "a square left of the circle", "red and blue"]
NET = NetSettings(arch="unet", widths=(32,))


class Redness(Scorer):
    """How red the middle of an image is."""

    def rate(self, images, prompts):
        return images[..., 0].mean((1, 2)) - images[..., 1:].mean((1, 2, 3))

    smooth_rate = rate


class Pallor(Redness):
    """The opposite, and without a gradient."""

    def rate(self, images, prompts):
        return -super().rate(images, prompts)

    smooth_rate = Scorer.smooth_rate


SCORERS = {"redness": Redness("redness", torch.nn.Identity()), "pallor": Pallor("pallor", torch.nn.Identity())}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """``base`` and ``prompts.txt``."""
    folder = tmp_path_factory.mktemp("files")
    tiny_sd(folder / "base")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return folder


def settings(files: Path, out: Path, training: dict | None = None, runtime: dict | None = None, **reward) -> Settings:
    given = {"scorer": ("redness",), "weight": (10.0,), "watch": ("none",), "height": 64, "width": 64}
    given |= {"validation": 0.4, "penalty": 0.1}
    return Settings(
        out,
        Reward(base=str(files / "base"), prompts=files / "prompts.txt", **given | reward),
        NET,
        Training(**{"epochs": 10, "batch": 3, "lr": 2e-3} | (training or {})),
        Runtime(device="cpu", log_every=1, **runtime or {}),
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "npnet.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_images_become_what_is_rewarded(files, tmp_path, caplog):
    """For prompts it never saw, through golden_noise and the exact scores; the file says what it learnt from."""
    caplog.set_level("INFO")
    fit(settings(files, tmp_path / "run", watch=("pallor",)), SCORERS)
    rows = read_history(tmp_path / "run" / "log.jsonl")
    assert abs(rows[0]["train_change"]) < 1e-6  # a new net is the identity
    last = rows[-1]
    assert last["validation_redness_gain"] > 0
    assert last["validation_redness_wins"] == 1
    assert last["validation_pallor_gain"] == pytest.approx(-last["validation_redness_gain"], rel=1e-4)
    assert last["trained_gain"] == pytest.approx(-last["watched_gain"], rel=1e-4)
    assert 0 < last["change"] < 1
    assert any("it gains +" in message and "in redness (trained on" in message for message in caplog.messages)

    npnet, base = load_npnet(tmp_path / "run" / "npnet.safetensors"), bases.load_base(files / "base")
    trained = sum(weight.numel() for weight in npnet.parameters())
    assert f"{16 * trained / 1e9:.2f} GB for {trained:,} trained numbers with gradients" in caplog.text
    assert "lower --batch and raise --accumulate, or give --precision bf16." in caplog.text
    told, noise = bases.encode(base, ["a green square"]), bases.initial_noise(base, [7], 64, 64)
    schedule = bases.Schedule("euler", 1, "trailing")
    plain, golden = (
        bases.decode(base, bases.sample(base, x, told, schedule, 1.0))
        for x in (noise, golden_noise(npnet, noise, told.prompt_embeds))
    )
    assert SCORERS["redness"].score(golden, [""]) > SCORERS["redness"].score(plain, [""])

    learnt = json.loads(npnet.metadata["npnet.reward"])
    assert learnt["scorers"] == {"redness": 10.0}
    assert learnt["watched"] == ["pallor"]
    assert (learnt["prompts"], learnt["denoising_steps"]) == (3, 1)
    assert json.loads(npnet.metadata["npnet.training"])["objective"] == "reward"
    assert npnet.metadata["npnet.base_model"] == str(files / "base")


def test_without_held_out_prompts_it_says_so(files, tmp_path, caplog):
    fit(settings(files, tmp_path / "run", training={"epochs": 1}, validation=0.0), SCORERS)
    assert "No prompt is held out" in caplog.text
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_gradient_is_that_of_the_loss(files, tmp_path):
    """Of the whole loss, by differences, where nothing is clipped."""
    told = settings(files, tmp_path, reward_clip=1e9, penalty=3.0, denoising_steps=2, sampler="ddim")
    _, npnet, objective = prepare_reward(told, Process(0, 1, torch.device("cpu")), SCORERS)
    with torch.no_grad():
        for weight in npnet.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    (batch,) = objective.prepare([0, 1])

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return objective.losses(npnet, batch).loss.sum()

    loss().backward()
    norm = torch.sqrt(sum(weight.grad.square().sum() for weight in npnet.parameters()))
    steps = [1e-2 * weight.grad / norm for weight in npnet.parameters()]
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for weight, step in zip(npnet.parameters(), steps, strict=True):
                weight.add_(sign * step)
        values.append(loss().item())
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(norm.item(), rel=0.03)


def test_the_gradient_of_an_image_is_clipped(files, tmp_path):
    _, _, objective = prepare_reward(
        settings(files, tmp_path, reward_clip=1e-3), Process(0, 1, torch.device("cpu")), SCORERS
    )
    told, noise = bases.encode(objective.base, PROMPTS[:2]), bases.initial_noise(objective.base, [0, 1], 64, 64)
    rewards, gradient = objective.rewarded(noise, told, PROMPTS[:2], [0, 1])
    torch.testing.assert_close(gradient.flatten(1).norm(dim=1), torch.full((2,), 1e-3))
    assert rewards.shape == (2, 1)


def test_stopped_and_started_again_it_gives_the_same_weights(files, tmp_path, monkeypatch):
    """With a sampler that draws noise on the way, and with a moving average."""
    training = {"ema": 0.9, "epochs": 6, "accumulate": 2, "batch": 2}
    same = {"training": training, "sampler": "lcm", "denoising_steps": 2}
    fit(settings(files, tmp_path / "whole", **same), SCORERS)
    calls = []

    class Interrupting(Redness):
        def smooth_rate(self, images, prompts):
            calls.append(len(images))
            if len(calls) == 6:
                raise KeyboardInterrupt
            return self.rate(images, prompts)

    scorers = {"redness": Interrupting("redness", torch.nn.Identity())}
    with pytest.raises(KeyboardInterrupt):
        fit(settings(files, tmp_path / "parts", runtime={"checkpoint_every": 0.0}, **same), scorers)
    assert not (tmp_path / "parts" / "npnet.safetensors").exists()
    fit(settings(files, tmp_path / "parts", **same), SCORERS)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    with pytest.raises(InputError, match="holds another run"):
        fit(settings(files, tmp_path / "parts", **same | {"sampler": "ddim"}), SCORERS)


def test_from_the_command_line_with_published_models(files, tmp_path):
    """Two preference models in their published layout, PickScore watched, bf16; the page has all that there is."""
    clip = tiny_scorers.write_clip(tmp_path / "pick_score")
    reward = tiny_scorers.write_image_reward(tmp_path)
    clip_score = tiny_scorers.write_clip(tmp_path / "clip-vit", salt=3)
    flags = "--arch unet --widths 32 --validation 0.4 --epochs 2 --batch 3 --validate-every 1 --height 64 --width 64"
    where = ["--base", str(files / "base"), "--prompts", str(files / "prompts.txt"), "--out", str(tmp_path / "run")]
    scorers = ["--scorer", f"clipscore={clip_score}", "--watch", f"pickscore={clip}"]
    code = main(
        ["fit", "--objective", "reward", *where, *scorers, *flags.split(), "--precision", "bf16", "--device", "cpu"]
    )
    assert code == 0
    rows = read_history(tmp_path / "run" / "log.jsonl")
    looks = [row for row in rows if "trained_gain" in row]
    assert [row["step"] for row in looks] == [1, 2]
    assert all(
        {"watched_gain", "wrong_prompt_gain", "diversity", "validation_pickscore"} <= row.keys() for row in looks
    )
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for words in ("CLIPScore", "PickScore", "watched", "diversity", "step 1", "step 2", "plain noise", "<svg"):
        assert words in page, words
    assert page.count("data:image/png") == 2 * 3  # two prompts: plain noise and two looks
    assert reward.exists()


@pytest.mark.parametrize("rank", [4, 0])
def test_an_adapter_learns_the_same(files, tmp_path, rank):
    """Of few weights and of all; the checkpointed network computes it with the adapter, and images without."""
    adapter = NetSettings(arch="adapter", rank=rank)
    given = settings(files, tmp_path / "run", training={"epochs": 3})
    path = fit(dataclasses.replace(given, net=adapter), SCORERS)
    last = read_history(tmp_path / "run" / "log.jsonl")[-1]
    assert last["validation_redness_gain"] > 0
    npnet = load_npnet(path)
    assert (npnet.config.architecture, npnet.config.rank, npnet.config.t) == ("adapter", rank, 999)
    whole = settings(files, tmp_path / "kept", training={"epochs": 3}, runtime={"checkpointing": False})
    fit(dataclasses.replace(whole, net=adapter), SCORERS)
    one, two = weights(tmp_path / "run"), weights(tmp_path / "kept")
    assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one)


@pytest.mark.parametrize(
    ("build", "steps"),
    [
        (tiny_z_image, 2),
        pytest.param(lambda folder: tiny_flux(folder, guidance=False), 1, marks=pytest.mark.long),
        pytest.param(tiny_sdxl, 1, marks=pytest.mark.long),
    ],
)
def test_an_adapter_learns_it_of_other_families(files, tmp_path, build, steps):
    """As the templates of few-step models name them, in bf16."""
    build(tmp_path / "base")
    training = {"epochs": 3, "batch": 1, "accumulate": 3, "precision": "bf16"}
    given = settings(files, tmp_path / "run", training=training, denoising_steps=steps)
    objective = dataclasses.replace(given.objective, base=str(tmp_path / "base"))
    fit(dataclasses.replace(given, objective=objective, net=NetSettings(arch="adapter", rank=4)), SCORERS)
    last = read_history(tmp_path / "run" / "log.jsonl")[-1]
    assert last["validation_redness_gain"] > 0


@pytest.mark.long
def test_two_processes_share_steps_and_looks(files, tmp_path):
    """Each draws noises of its own; looks are at all prompts together."""
    clip_score = tiny_scorers.write_clip(tmp_path / "clip-vit", salt=3)
    flags = "--arch unet --widths 32 --validation 0.4 --epochs 4 --batch 1 --validate-every 2 --height 64 --width 64"
    where = ["--base", str(files / "base"), "--prompts", str(files / "prompts.txt"), "--out", str(tmp_path / "run")]
    command = ["-m", "trainer", "fit", "--objective", "reward", *where, "--scorer", f"clipscore={clip_score}"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [sys.executable, *torchrun, *command, *flags.split(), "--watch", "none", "--device", "cpu"],
        cwd=Path(__file__).resolve().parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    rows = read_history(tmp_path / "run" / "log.jsonl")
    assert rows[-1]["step"] == 6
    assert [row["step"] for row in rows if "trained_gain" in row] == [2, 4, 6]
    assert all(math.isfinite(row["validation_clipscore_gain"]) for row in rows if "trained_gain" in row)
    assert (tmp_path / "run" / "report.html").exists()


def test_what_is_watched_is_what_is_there_and_not_trained_on(files, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HPS_ROOT", str(tmp_path / "hps"))
    caplog.set_level("INFO")

    def watched(*trained: str) -> tuple[str, ...]:
        reward = settings(files, tmp_path, scorer=trained, weight=None, watch=None).objective
        return watching(reward, {})

    assert watched("imagereward=somewhere.pt") == ("none",)
    assert "Nothing is watched" in caplog.text
    (tmp_path / "hps").mkdir()
    for name in ("HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt"):
        (tmp_path / "hps" / name).touch()
    assert watched("imagereward=somewhere.pt") == ("hpsv2.1",)
    assert watched("imagereward", "hpsv2.1=mine.pt") == ("hpsv2",)
    assert "HPSv2 is watched and not trained on" in caplog.text


def look(trained: float, watched: float | None) -> dict:
    return {"trained_gain": trained, "watched_gain": watched}


@pytest.mark.parametrize(
    ("looks", "is_hacked"),
    [
        ([look(0.1, 0.5), look(0.2, 0.4), look(0.3, 0.3), look(0.4, 0.2)], True),
        ([look(0.2, 0.4), look(0.3, 0.3), look(0.4, 0.2)], False),  # too few
        ([look(0.1, 0.5), look(0.2, 0.4), look(0.3, 0.45), look(0.4, 0.2)], False),  # the watched one rose once
        ([look(0.1, 0.5), look(0.2, 0.4), look(0.15, 0.3), look(0.4, 0.2)], False),  # so did not the trained-on one
        ([look(0.1, None), look(0.2, None), look(0.3, None), look(0.4, None)], False),
        ([{}, {"trained_gain": 1.0}, look(0.0, 0.9)], False),
    ],
)
def test_what_counts_as_hacking(looks, is_hacked):
    assert hacked(looks) == is_hacked


def test_a_run_that_pleases_its_judges_only_ends_and_goes_on(files, tmp_path, caplog):
    """Redness is trained on and its opposite watched. The net is written; --no-stop takes it to the end."""
    hurried = {"watch": ("pallor",), "runtime": {"validate_every": 1}}
    path = fit(settings(files, tmp_path / "run", **hurried), SCORERS)
    (words,) = [message for message in caplog.messages if "The run ends after step" in message]
    assert "redness, which it is trained on, rose at each of the last 3 looks while pallor fell" in words
    assert "--no-stop" in words
    steps = json.loads(load_npnet(path).metadata["npnet.training"])["steps"]
    assert 4 <= steps < 10
    caplog.clear()
    fit(settings(files, tmp_path / "run", stop=False, **hurried), SCORERS)
    assert json.loads(load_npnet(path).metadata["npnet.training"])["steps"] == 10
    assert any("Look at the pictures" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"denoising_steps": 3}, "--denoising-steps 3 came: give 1 or 2"),
        ({"weight": (1.0, 2.0)}, "2 weights came for 1 scorers"),
        ({"weight": None}, "no published weight for redness"),
        ({"reward_clip": 0.0}, "--reward-clip 0.0 came"),
        ({"penalty": -1.0}, "--penalty -1.0 came"),
        ({"watch": ("redness",)}, "redness came as --scorer and as --watch"),
        ({"scorer": ("pallor",)}, "The scores of pallor have no gradient"),
        ({"scorer": ("beauty",)}, "There is no preference model beauty"),
        ({"watch": ("hpsv2=nowhere.pt",)}, "No weights of HPSv2 are at nowhere.pt"),
        ({"sampler": "eulr"}, "There is no sampler 'eulr'"),
        ({"prompts": Path("none.txt")}, "There is no prompt file none.txt"),
        ({"base": "nowhere"}, "There is no base model nowhere"),
        ({"base": None}, "came without --base: name a few-step model"),
        ({"height": 70}, "multiples of 8 pixels"),
        ({"validation": 1.0}, "validation share of 1.0"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(files, tmp_path, changes, words):
    given = settings(files, tmp_path / "run")

    def fit_changed() -> None:
        fit(dataclasses.replace(given, objective=dataclasses.replace(given.objective, **changes)), SCORERS)

    with pytest.raises(InputError, match=words):
        fit_changed()
    assert not (tmp_path / "run").exists()


def test_guidance_is_refused_where_it_is_built_in(files, tmp_path):
    turbo = shutil.copytree(files / "base", tmp_path / "turbo")
    index = json.loads((turbo / "model_index.json").read_text())
    (turbo / "model_index.json").write_text(json.dumps(index | {"_is_distilled": True}))
    given = settings(files, tmp_path / "run", cfg=3.0)
    with pytest.raises(InputError, match="Guidance 3 was asked for"):
        fit(dataclasses.replace(given, objective=dataclasses.replace(given.objective, base=str(turbo))), SCORERS)
    assert not (tmp_path / "run").exists()


def test_a_net_of_one_size_needs_images_of_it(files, tmp_path):
    swin = NetSettings(swin_size=16, swin_dim=8, swin_depths=(1, 1), swin_heads=(1, 2), swin_window=2)
    given = settings(files, tmp_path / "run", width=96)
    with pytest.raises(InputError, match="Images of 96x64 came for a net of the architecture npnet"):
        fit(dataclasses.replace(given, net=swin), SCORERS)
    given = settings(files, tmp_path / "run", training={"epochs": 1})
    npnet = load_npnet(fit(dataclasses.replace(given, net=swin), SCORERS))
    assert npnet.config.resolution == 8


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "x", "--objective", "reward"], "--dataset came, which the objective reward does not have"),
        (["--dataset", "x", "--penalty", "2"], "--penalty came, which the objective pairs does not have"),
        ([], "No dataset came to learn from"),
        (["--objective", "reward"], "came without --base"),
    ],
)
def test_flags_of_the_other_objective_are_refused(tmp_path, capsys, flags, words):
    assert main(["fit", "--out", str(tmp_path / "run"), *flags]) == 2
    assert words in capsys.readouterr().err
