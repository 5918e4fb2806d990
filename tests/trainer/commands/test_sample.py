"""npnet sample on tiny real pipelines: the same images as evaluate's, side by side, of any size, with a ControlNet."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from PIL import Image

from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.config import NPNetConfig
from npnet_core.golden import golden_noise
from npnet_core.model import NPNet
from tests import tiny_pipelines
from tests.tiny_scorers import images
from tests.trainer.collecting.test_collect import counted
from trainer import bases
from trainer.bases import Schedule, load_base
from trainer.commands.cli import main
from trainer.commands.sample import GAP, file_stem
from trainer.data.images import read_image, read_metadata, write_image
from trainer.data.prompts import PromptRow
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.sampling_settings import Setting

PROMPT = "A red circle, left of: “a blue square”"
SETTING = Setting(Schedule("ddim", 2), 3.0, height=64, width=96)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """sd; control: a ControlNet for it; a, b: nets; picture.png, 96x64."""
    root = tmp_path_factory.mktemp("models")
    tiny_pipelines.tiny_sd(root / "sd")
    pipe = diffusers.DiffusionPipeline.from_pretrained(root / "sd", local_files_only=True)
    torch.manual_seed(0)
    controlnet = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    for parameter in controlnet.parameters():  # made with zeroed last layers
        torch.nn.init.normal_(parameter, std=0.1)
    controlnet.save_pretrained(root / "control")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        small = {"swin_size": 16, "swin_dim": 8, "swin_depths": (1, 1), "swin_heads": (1, 2), "swin_window": 2}
        npnet = NPNet(NPNetConfig(family="sd", resolution=8, prompt_dim=32, **small))
        npnet.alpha.data.fill_(0.5)
        save_npnet(npnet, root / f"{name}.safetensors")
    write_image(root / "picture.png", images(1, 64, 96)[0], {})
    return root


def command(models, out, *more) -> list[str]:
    argv = ["sample", "--base", models / "sd", "--npnet", models / "a.safetensors", "--prompt", PROMPT, "--out", out]
    return list(map(str, [*argv, "--steps", 2, "--cfg", 3, "--device", "cpu", *more]))


def test_standard_and_golden_of_a_seed_are_evaluate_s(tmp_path, models, capsys):
    assert main(command(models, tmp_path / "s", "--size", "96x64", "--seed", "7", "2000", "--batch", "1")) == 0
    printed = [Path(line) for line in capsys.readouterr().out.split()]
    base, npnets = load_base(models / "sd"), {"a": load_npnet(models / "a.safetensors")}
    for path, seed in zip(printed, (7, 2000), strict=True):
        evaluation = evaluate(
            base, npnets, [], [PromptRow(PROMPT)], settings=[SETTING], out=tmp_path / "e", methods=["npnet"],
            seeds=range(seed, seed + 1), batch=1,
        )  # fmt: skip
        assert evaluation.rows == []
        parts = []
        for method in ("standard", "a"):
            single = path.with_name(path.name.replace("side-by-side", method))
            (theirs,) = (tmp_path / "e" / "images" / SETTING.name / method).glob(f"*-{seed}.png")
            assert torch.equal(read_image(single), read_image(theirs))
            about = read_metadata(single)
            assert (about["prompt"], about["seed"], about["method"]) == (PROMPT, seed, method)
            assert {name: about[name] for name in SETTING.to_dict()} == SETTING.to_dict()
            parts.append(read_image(single))
        assert not torch.equal(*parts)
        both = read_image(path)
        assert both.shape == (64, 96 + GAP + 96, 3)
        assert torch.equal(both[:, :96], parts[0])
        assert torch.equal(both[:, -96:], parts[1])
        assert (both[:, 96:-96] == 1).all()
        assert read_metadata(path)["methods"] == ["standard", "a"]


def test_several_nets_and_seeds_share_batches(tmp_path, models, monkeypatch, capsys):
    base = load_base(models / "sd")
    monkeypatch.setattr(bases, "load_base", lambda *args, **kw: base)
    nets = ("--npnet", models / "a.safetensors", f"other={models / 'b.safetensors'}")
    with counted(base.network) as rows, counted(base.pipe.text_encoder) as encoded:
        assert main(command(models, tmp_path, *nets, "--seed", "1", "2", "3", "--batch", "2", "--size", "64x64")) == 0
    assert rows == [4, 4] * 3 + [2, 2] * 3  # two steps of both branches
    assert sum(encoded) == 2
    assert len(capsys.readouterr().out.split()) == 3
    (folder,) = tmp_path.iterdir()
    names = {path.name.removeprefix(f"{file_stem(PROMPT)}-") for path in folder.iterdir()}
    kinds = ("standard", "a", "other", "side-by-side")
    assert names == {f"{seed}-{kind}.png" for seed in (1, 2, 3) for kind in kinds}


def test_a_control_picture_gives_size_and_shape(tmp_path, models):
    """As diffusers' ControlNet pipeline makes it from the same start."""
    more = ("--controlnet", models / "control", "--control", models / "picture.png", "--seed", "4")
    assert main(command(models, tmp_path / "with", *more)) == 0
    pipe = diffusers.DiffusionPipeline.from_pretrained(models / "sd", local_files_only=True)
    controlnet = diffusers.ControlNetModel.from_pretrained(models / "control")
    guided = diffusers.StableDiffusionControlNetPipeline(**pipe.components, controlnet=controlnet)
    guided.set_progress_bar_config(disable=True)
    base, npnet = load_base(models / "sd"), load_npnet(models / "a.safetensors")
    noise = bases.initial_noise(base, [4], 64, 96)
    starts = {"standard": noise, "a": golden_noise(npnet, noise, bases.encode(base, [PROMPT]).prompt_embeds)}
    for method, start in starts.items():
        (path,) = (tmp_path / "with").glob(f"*/*-4-{method}.png")
        with Image.open(models / "picture.png") as picture:
            expected = guided(
                PROMPT, image=picture, latents=start, num_inference_steps=2, guidance_scale=3.0, output_type="pt"
            ).images
        expected = torch.as_tensor(expected)[0].permute(1, 2, 0)
        assert (read_image(path) - expected).abs().max() < 1.1 / 255
        assert read_metadata(path)["control"] == "picture.png"
    assert main(command(models, tmp_path / "without", "--size", "96x64", "--seed", "4")) == 0
    (path,) = (tmp_path / "without").glob("*/*-4-standard.png")
    (guided_path,) = (tmp_path / "with").glob("*/*-4-standard.png")
    assert not torch.equal(read_image(path), read_image(guided_path))


def test_the_base_model_s_own_size_is_the_default(tmp_path, models):
    assert main(command(models, tmp_path)) == 0
    (path,) = tmp_path.glob("*/*-0-a.png")
    assert read_image(path).shape == (128, 128, 3)


def test_file_names_can_be_read_and_tell_prompts_apart():
    assert file_stem(PROMPT).startswith("a-red-circle-left-of-a-blue-square-")
    assert file_stem("grüße / 猫").startswith("grüße-猫-")
    assert len(file_stem("!!!")) == 8
    assert file_stem("a cat") != file_stem("a, cat")
    assert len(file_stem("long " * 100)) < 60


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--base", "./nowhere"), "There is no base model ./nowhere"),
        (("--npnet", "nowhere.pth"), "nowhere.pth"),
        (("--seed", "1", "2", "1"), "give each seed once"),
        (("--batch", "0"), "--batch 0 came"),
        (("--steps", "0"), "0 denoising steps"),
        (("--size", "big"), "The size big came"),
        (("--size", "60x64"), "use multiples of 8"),
        (("--control", "picture.png"), "go together: give both --controlnet and --control"),
        (("--controlnet", "control"), "go together"),
        (("--controlnet", "control", "--control", "nowhere.png"), "There is no picture nowhere.png"),
        (("--controlnet", "control", "--control", "picture.png", "--size", "64x64"), "is 96x64 and images of 64x64"),
        (("--npnet", "side-by-side=A"), "A net is named side-by-side"),
        (("--device", "cuda:7"), "cuda:7"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, models, more, message, capsys):
    more = [str(models / word) if word in ("picture.png", "control") else word for word in more]
    more = [word.replace("=A", f"={models / 'a.safetensors'}") for word in more]
    assert main(command(models, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("npnet sample: ")
    assert message in error
    assert not (tmp_path / "out").exists()
