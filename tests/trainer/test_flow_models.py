"""The whole way with tiny flow models, as users go it: collect, fit, sample, evaluate; killed and gone on with."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch

from npnet_core.config import UNetConfig
from npnet_core.errors import InputError
from npnet_core.npd import NPDReader, PairKey
from npnet_core.redenoising import Level, redenoise
from npnet_core.unet import UNet
from tests import tiny_pipelines
from tests.tiny_scorers import write_clip
from tests.trainer.collecting.test_collect import counted, forks, start
from trainer import bases
from trainer.bases import load_base, with_sibling
from trainer.collecting.manifest import manifest
from trainer.collecting.pairs import make_pairs
from trainer.collecting.redenoising import REDENOISING
from trainer.commands.cli import main
from trainer.commands.collect import Options, recipe_from
from trainer.evaluation.methods import check_methods, choose_methods
from trainer.evaluation.sampling_settings import every_setting

SIZE = 64
PROMPTS = ["a red circle", "one green square left of a blue circle", "a blue square", "one red square"]
FAMILIES = {"z-image": "z-image", "sd3": "sd3", "flux": "flux", "turbo": "z-image", "schnell": "flux"}
PRESETS = {  # the tiny Turbo is not of the published size
    **{"z-image": "z-image", "sd3": "sd3.5", "flux": "flux1-dev"},
    **{"turbo": "z-image-turbo", "schnell": "flux1-schnell"},
}
SIBLINGS = {"turbo": "z-image", "schnell": "flux"}


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """z-image and turbo, sd3, flux and schnell: base models; clip: a preference model; prompts.txt."""
    root = tmp_path_factory.mktemp("flow-models")
    tiny_pipelines.tiny_z_image(root / "z-image")
    tiny_pipelines.tiny_z_image(root / "turbo", shift=3.0)
    tiny_pipelines.tiny_sd3(root / "sd3")
    tiny_pipelines.tiny_flux(root / "flux")
    tiny_pipelines.tiny_flux(root / "schnell", guidance=False)
    write_clip(root / "clip", salt=1)
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    return root


def command(name: str, models: Path, kind: str, out: Path, *more) -> list[str]:
    more += ("--preset", PRESETS[kind])
    argv = [name, "--base", models / kind, "--prompts", models / "prompts.txt", "--out", out, "--device", "cpu"]
    return list(map(str, [*argv, "--scorer", f"clipscore={models / 'clip'}", *more]))


def collect(models: Path, kind: str, out: Path, *more) -> list[str]:
    sides = ("--height", SIZE, "--width", SIZE, "--steps", 3)
    siblings = ("--redenoise-with", models / SIBLINGS[kind]) if kind in SIBLINGS else ()
    return command("collect", models, kind, out, *sides, *siblings, *more)


@pytest.mark.parametrize("kind", FAMILIES)
def test_from_prompts_to_a_report(models, tmp_path, kind):
    assert main(collect(models, kind, tmp_path / "pairs")) == 0
    reader = NPDReader(tmp_path / "pairs", verify=True)
    assert len(reader) == len(PROMPTS)
    assert reader.manifest.base_family == FAMILIES[kind]
    assert reader.manifest.guidance == ("embedding" if kind in ("flux", "schnell") else "cfg")
    assert (reader.manifest.redenoised_with is not None) == (kind in SIBLINGS)
    assert all((target - source).float().std() > 1e-3 for source, target in reader)

    argv = ["fit", "--dataset", tmp_path / "pairs", "--out", tmp_path / "run", "--scorer", "none", "--arch", "unet"]
    argv += ["--widths", 32, 32, "--epochs", 1, "--batch", 2, "--validation", 0, "--device", "cpu"]
    assert main(list(map(str, argv))) == 0

    net = tmp_path / "run" / "npnet.safetensors"
    more = ["--npnet", net, "--size", f"{SIZE}x{SIZE}", "--steps", 3, "--limit", 2]
    more += ["--methods", "inversion", "npnet", "wrong-prompt"]
    if kind in SIBLINGS:
        more += ["--redenoise-with", models / SIBLINGS[kind]]
    assert main(command("evaluate", models, kind, tmp_path / "evaluation", *more)) == 0
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    (setting,) = results["about"]["settings"].values()
    preset = bases.PRESETS[PRESETS[kind]]
    assert (setting["sampler"], setting["cfg"]) == ("euler", preset.cfg)
    predictions = {row["method"]: row["predictions"] for row in results["about"]["cost"]}
    branches = 2 if preset.guidance == "cfg" else 1
    assert predictions["npnet"] == predictions["standard"] == 3 * branches
    assert predictions["inversion"] > predictions["standard"]  # the sibling's count, too

    argv = ["sample", "--base", models / kind, "--npnet", net, "--prompt", PROMPTS[0], "--steps", 2]
    argv += ["--preset", PRESETS[kind]]
    argv += ["--size", f"{SIZE}x{SIZE}", "--out", tmp_path / "samples", "--device", "cpu"]
    assert main(list(map(str, argv))) == 0
    assert len(list((tmp_path / "samples" / f"euler-2-cfg{preset.cfg:g}-{SIZE}x{SIZE}").glob("*.png"))) == 3


@forks
@pytest.mark.parametrize("kind", ["z-image", "flux"])
def test_killed_and_gone_on_with(models, tmp_path, kind):
    more = ("--batch", 1, "--seeds-per-prompt", 2)
    assert main(collect(models, kind, tmp_path / "whole", *more)) == 0
    killed = tmp_path / "killed"
    process = start(collect(models, kind, killed, *more), pairs_per_part=2)
    while process.is_alive() and not any((killed / "parts").glob("*.jsonl")):
        time.sleep(0.01)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert main(collect(models, kind, killed, *more)) == 0
    ours, theirs = (NPDReader(folder, verify=True) for folder in (killed, tmp_path / "whole"))
    assert [record.key for record in ours.records] == [record.key for record in theirs.records]
    assert [record.scores for record in ours.records] == [record.scores for record in theirs.records]
    for pair, expected in zip(ours, theirs, strict=True):
        assert all(map(torch.equal, pair, expected))


# A model whose guidance is built in


def test_the_sibling_re_denoises_and_the_model_samples(models):
    """On the model's levels, with the guidance of the sibling's preset; both images without guidance."""
    turbo, base = load_base(models / "turbo", distilled=True), load_base(models / "z-image")
    pair = with_sibling(turbo, models / "z-image")
    assert pair.sibling.pipe.text_encoder is pair.pipe.text_encoder
    assert bases.fingerprint(pair) == bases.fingerprint(turbo)
    options = Options(base="", prompts=Path(), out=Path(), preset="z-image-turbo", height=SIZE, width=SIZE, steps=3)
    recipe = recipe_from(options, pair)
    assert (recipe.cfg, recipe.inversion_cfg, recipe.depth, recipe.schedule.steps) == (4.0, 1.0, 1, 3)
    prompts, noise = bases.encode(pair, PROMPTS[:1]), bases.initial_noise(pair, [7], SIZE, SIZE)
    with counted(pair.network) as sampled, counted(pair.sibling.network) as redenoised:
        made = make_pairs(pair, [], recipe, [PairKey(PROMPTS[0], 7, (16, 8, 8))], prompts, with_images=True)
    assert (sampled, redenoised) == ([2, 2, 2], [2, 1])
    levels = bases.levels(turbo, recipe.schedule, (16, 8, 8))
    assert levels == manifest_levels(pair, recipe)
    expected = redenoise(bases.denoiser(base, prompts), noise, levels, cfg=4.0).target
    torch.testing.assert_close(made.target, expected, rtol=1e-5, atol=1e-5)
    image = bases.decode(turbo, bases.sample(turbo, expected, prompts, recipe.schedule, 1.0))
    torch.testing.assert_close(made.images[1], image, rtol=1e-3, atol=1e-3)


def manifest_levels(base, recipe) -> list[Level]:
    sigmas = manifest(base, recipe, []).sigmas
    levels = bases.levels(base, recipe.schedule, (16, 8, 8))
    assert sigmas == tuple(level.sigma for level in levels[:2])
    return levels


@pytest.mark.parametrize("kind", SIBLINGS)
def test_a_distilled_model_without_sibling_makes_no_pairs(models, tmp_path, kind, capsys):
    argv = collect(models, kind, tmp_path / "pairs")
    at = argv.index("--redenoise-with")
    assert main(argv[:at] + argv[at + 2 :]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has its guidance built in" in said
    assert "(--redenoise-with)" in said
    assert not (tmp_path / "pairs").exists()
    methods = choose_methods(["inversion"], {})
    with pytest.raises(InputError, match=r"guidance built in, .*--redenoise-with"):
        check_methods(methods, load_base(models / kind, distilled=True), [], REDENOISING)


@pytest.mark.parametrize(
    ("kind", "sibling", "message"),
    [
        ("turbo", "flux", "whose family and latent scale|whose family"),
        ("schnell", "schnell", "has its guidance built in like"),
        ("turbo", "other", "whose text encoders it does not have"),
    ],
)
def test_models_that_are_no_siblings(models, tmp_path, kind, sibling, message):
    tiny_pipelines.tiny_z_image(tmp_path / "other", seed=1)
    source = tmp_path / "other" if sibling == "other" else models / sibling
    with pytest.raises(InputError, match=message) as caught:
        with_sibling(load_base(models / kind, distilled=True), source)
    assert "\n" not in str(caught.value)


def test_a_distilled_model_takes_no_guidance(models):
    turbo = load_base(models / "turbo", distilled=True)
    with pytest.raises(InputError, match=r"Guidance 4 was asked for and .* has its guidance built in: use 1, or if"):
        every_setting(turbo, samplers=["euler"], steps=[2], spacings=["own"], cfgs=[1.0, 4.0])
    (setting,) = every_setting(turbo, samplers=["euler"], steps=[2], spacings=["own"], cfgs=[1.0])
    with pytest.raises(InputError, match="Guidance 3 was asked for"):
        check_methods(choose_methods(["cfg-3-first-1"], {}), turbo, [setting], REDENOISING)


def test_a_net_of_another_family_is_refused(models, tmp_path):
    config = UNetConfig(family="z-image", channels=16, prompt_dim=32, resolution=8, widths=(32, 32))
    methods, base = choose_methods(["npnet"], {"net": UNet(config)}), load_base(models / "flux")
    with pytest.raises(InputError, match=r"is for z-image models \(16 channels, .* is one of the flux models"):
        check_methods(methods, base, [], REDENOISING)
