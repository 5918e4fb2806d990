"""An adapter, from a dataset to a net: the base model's own network, what it is told, and that a fit is a fit."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch

from npnet_core.adapter import Adapter
from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from npnet_core.npd import NPDWriter
from tests.tiny_fit import options
from tests.tiny_pipelines import tiny_flux, tiny_hunyuan_dit, tiny_sd, tiny_sd3, tiny_sdxl, tiny_z_image
from tests.trainer.fitting.test_fit import TORCHRUN, equal, finish, npnet_fit, stop_at, weights
from trainer import bases
from trainer.bases import Schedule
from trainer.collecting.manifest import manifest
from trainer.collecting.recipe import preset_recipe
from trainer.collecting.redenoising import REDENOISING
from trainer.commands.fit import run
from trainer.commands.options import save_config
from trainer.evaluation.diagnostics import diagnose
from trainer.evaluation.draws import Draw
from trainer.evaluation.generate import make_batch
from trainer.evaluation.methods import check_methods, choose_methods
from trainer.evaluation.sampling_settings import Setting
from trainer.fitting.history import read_history

BUILD = {
    "sdxl": tiny_sdxl,
    "sd2": lambda folder: tiny_sd(folder, 1024, prediction="v_prediction"),
    "hunyuan-dit": tiny_hunyuan_dit,
    "z-image": tiny_z_image,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}
KINDS = pytest.mark.parametrize("kind", BUILD)
PROMPTS = ["a red circle", "the blue square", "one green circle", "a blue circle and the red square left of one"]
NO_SWIN = dict.fromkeys(("swin_size", "swin_dim", "swin_depths", "swin_heads", "swin_window"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {kind: build(root / kind) for kind, build in BUILD.items()}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, folders) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    return {kind: make_pairs(root / kind, folders[kind]) for kind in ("sdxl", "sd2")}


def make_pairs(folder: Path, base: Path, seeds: int = 4) -> Path:
    """Targets are the source and a shift of the base model's own prediction, which no net from scratch knows."""
    model = bases.load_base(base)
    recipe = preset_recipe(bases.default_preset(model))
    generator, level = torch.Generator().manual_seed(0), bases.levels(model, recipe.schedule)[0]
    with NPDWriter(folder, manifest(model, recipe, []), worker="w", pairs_per_part=16) as writer:
        for prompt in PROMPTS:
            encoded = bases.encode(model, [prompt])
            for seed in range(seeds):
                source = torch.randn(1, model.channels, 16, 16 - 4 * (seed % 2), generator=generator)
                eps = bases.predict(model, source, level.t, encoded, 1.0)
                writer.add(source[0], (source + 0.3 * eps)[0], prompt=prompt, seed=seed, scores={})
    return folder


def adapter(dataset: Path, out: Path, **changes):
    settings = {"arch": "adapter", "rank": 4, "epochs": 2, "batch": 6, "lr": 3e-3, "validation": 0.25}
    return options(dataset, out, **NO_SWIN | settings | changes)


def first_level(base):
    return bases.levels(base, preset_recipe(bases.default_preset(base)).schedule)[0]


def noises(base, count: int = 2, width: int = 16) -> torch.Tensor:
    return torch.randn(count, base.channels, 16, width, generator=torch.Generator().manual_seed(1))


def lively(base, **config) -> Adapter:
    """An adapter none of whose tensors is zero."""
    torch.manual_seed(3)
    made = bases.adapter_config(base, 4, first_level(base), 5.5, 16)
    npnet = Adapter(dataclasses.replace(made, **config)).eval()
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return npnet


@pytest.fixture(scope="module")
def fitted(datasets, tmp_path_factory) -> Path:
    """A run of 8 steps on SDXL."""
    out = tmp_path_factory.mktemp("fit") / "run"
    run(adapter(datasets["sdxl"], out, epochs=4, ema=0.5))
    return out


def test_it_starts_as_the_identity_and_learns(fitted):
    rows = read_history(fitted / "log.jsonl")
    assert abs(rows[0]["train_explained"]) < 1e-6
    assert rows[-2]["train_explained"] > 0.05
    assert {"validation_explained", "prompt_dependence"} <= rows[-1].keys()


def test_the_file_says_what_it_is_for(fitted, datasets, folders):
    npnet, base = load_npnet(fitted / "npnet.safetensors"), bases.load_base(folders["sdxl"])
    level, config = bases.levels(base, Schedule("ddim", 10))[0], npnet.config
    assert (config.architecture, config.family, config.rank, config.network) == ("adapter", "sdxl", 4, "unet")
    assert (config.sigma, config.t, config.cfg) == (level.sigma, level.t, 5.5)
    assert npnet.metadata["npnet.base_model"] == str(folders["sdxl"])
    assert json.loads(npnet.metadata["npnet.training"])["base_precision"] is None
    assert config.prompt_dim == 64


@KINDS
@torch.no_grad()
def test_f_is_what_peft_computes(folders, kind):
    """Of the file's own tensors, by the names that it gives them; the output layer is put in by hand."""
    from peft import LoraConfig, inject_adapter_in_model

    base = bases.load_base(folders[kind])
    npnet, encoded = lively(base), bases.encode(base, PROMPTS[:2])
    noise = noises(base, width=12)
    golden = npnet(noise, bases.predictor_of(base, encoded))

    other, prefix = bases.load_base(folders[kind]), f"{npnet.config.network}."
    tensors = {name.removeprefix(prefix): value for name, value in npnet.state_dict().items()}
    other.network.get_submodule(npnet.config.output).load_state_dict(
        {name: tensors.pop(f"{npnet.config.output}.{name}") for name in ("weight", "bias")}
    )
    layers = [name.removesuffix(".weight") for name in npnet.config.weights]
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=layers), other.network)
    state = other.network.state_dict() | {
        name.replace(".weight", ".default.weight"): value for name, value in tensors.items()
    }
    other.network.load_state_dict(state)
    expected = noise + other.run_network(noise, torch.tensor(npnet.config.t), encoded.cond, 5.5, None)
    assert (golden - expected).abs().max() < 1e-5
    assert (golden - noise).abs().max() > 0.01


@KINDS
@torch.no_grad()
def test_the_base_model_predicts_as_before(folders, kind):
    base = bases.load_base(folders[kind])
    encoded, noise, t = bases.encode(base, PROMPTS[:2]), noises(base), 901
    before, print_before = bases.predict(base, noise, t, encoded, 5.5), bases.fingerprint(base)
    for npnet in (lively(base), whole(base)):
        assert not torch.equal(bases.golden(base, npnet, noise, encoded), noise)
        assert torch.equal(bases.predict(base, noise, t, encoded, 5.5), before)
    assert bases.fingerprint(base) == print_before


def whole(base) -> Adapter:
    """Random differences of all weights but those of Hunyuan-DiT's pooling, which is no call of its layers: they get no
    gradient and stay zero."""
    npnet = Adapter(bases.adapter_config(base, 0, first_level(base), 5.5, 16)).eval()
    with torch.no_grad():
        for name, parameter in npnet.named_parameters():
            if ".pooler." not in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(5))
    return npnet


@KINDS
@torch.no_grad()
def test_differences_are_added_to_every_weight(folders, kind):
    base, other = bases.load_base(folders[kind]), bases.load_base(folders[kind])
    npnet, encoded, noise = whole(base), bases.encode(base, PROMPTS[:1]), noises(base, 1)
    prefix, output = f"{npnet.config.network}.", npnet.config.output
    for name, weight in other.network.named_parameters():
        if name.startswith(f"{output}."):
            weight.copy_(npnet.state_dict()[prefix + name])
        elif name in npnet.config.weights:
            weight.add_(npnet.state_dict()[f"{prefix}{name}.diff"])
    assert len(npnet.config.weights) > 0.9 * len(list(other.network.parameters()))
    t = torch.tensor(npnet.config.t)
    expected = noise + other.run_network(noise, t, encoded.cond, npnet.config.cfg, None)
    assert (bases.golden(base, npnet, noise, encoded) - expected).abs().max() < 1e-5


@KINDS
@pytest.mark.parametrize("make", [lively, whole])
def test_checkpointing_changes_no_gradient(folders, kind, make):
    """Even where the base model without the adapter is called between forward and backward."""
    gradients = []
    for save in (False, True):
        base = bases.load_base(folders[kind])
        npnet, encoded = make(base), bases.encode(base, PROMPTS[:1])
        noise = noises(base, 1)
        if save:
            bases.save_memory(base)
        loss = npnet(noise, bases.predictor_of(base, encoded)).square().mean()
        bases.predict(base, noise, 901, encoded, 1.0)
        loss.backward()
        gradients.append([torch.zeros(()) if p.grad is None else p.grad for p in npnet.parameters()])
    assert sum(gradient.any().item() for gradient in gradients[0]) > 0.8 * len(gradients[0])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


def test_half_precision_keeps_the_output_in_fp32(folders):
    base, half = bases.load_base(folders["sdxl"]), bases.load_base(folders["sdxl"], precision="bf16")
    npnet, noise = lively(base), noises(base)
    exact, rounded = (bases.golden(b, npnet, noise, bases.encode(b, PROMPTS[:2])) for b in (base, half))
    change = torch.linalg.vector_norm(exact - noise)
    assert 0 < torch.linalg.vector_norm(rounded - exact) < 0.05 * change
    assert not torch.equal(rounded, rounded.bfloat16().float())


# --- a fit is a fit


def test_stopped_anywhere_it_goes_on_to_the_bit(datasets, fitted, tmp_path):
    out = tmp_path / "run"
    stop_at(3, out / "log.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(adapter(datasets["sdxl"], out, epochs=4, ema=0.5))
    run(adapter(datasets["sdxl"], out, epochs=4, ema=0.5, checkpointing=False))
    assert equal(weights(out), weights(fitted))


ONE_STEP = {"epochs": 1, "batch": 4, "lr": 1e-3, "clip": 1.0}


@pytest.fixture(scope="module")
def one_step(datasets, tmp_path_factory) -> Path:
    """Over several sizes, with checkpointed blocks; the layer that starts at zero alone has a gradient at first."""
    out = tmp_path_factory.mktemp("one-step") / "run"
    run(adapter(datasets["sdxl"], out, **ONE_STEP))
    return out


def test_batches_may_share_a_step(datasets, one_step, tmp_path):
    run(adapter(datasets["sdxl"], tmp_path / "run", **ONE_STEP | {"batch": 2, "accumulate": 2}))
    assert close(one_step, tmp_path / "run")


@pytest.mark.long
def test_processes_may_share_a_step(datasets, one_step, tmp_path):
    save_config(adapter(datasets["sdxl"], tmp_path / "run", **ONE_STEP | {"batch": 2}), tmp_path / "two.toml")
    finish(npnet_fit(tmp_path / "two.toml", *TORCHRUN))
    assert close(one_step, tmp_path / "run")


def close(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all((second[name] - value).abs().max() < 1e-5 for name, value in first.items())


@pytest.mark.parametrize("init", [False, True])
def test_training_goes_on_from_a_file(datasets, fitted, tmp_path, init):
    file = fitted / "npnet.safetensors"
    if init:
        run(options(datasets["sdxl"], tmp_path, **NO_SWIN, init=file, epochs=1, lr=0.0, batch=6, cache=False))
        assert equal(weights(tmp_path), weights(fitted))
    else:
        with pytest.raises(InputError, match=r"adapter of a sdxl network that .* does not have"):
            run(options(datasets["sd2"], tmp_path, **NO_SWIN, init=file))


def test_it_is_compared_as_other_nets_are(folders, fitted):
    """By its own prompt's picture, for one prediction more; one for another family is refused before."""
    base, npnet = bases.load_base(folders["sdxl"]), load_npnet(fitted / "npnet.safetensors")
    setting, draws = Setting(Schedule("ddim", 2), 1.0, 128, 128), [Draw(PROMPTS[0], None, 7, PROMPTS[1])]
    methods = {each.name: each for each in choose_methods(("npnet", "wrong-prompt"), {"mine": npnet})}
    check_methods(list(methods.values()), base, [setting], REDENOISING)
    encoded, other = (bases.encode(base, [prompt]) for prompt in PROMPTS[:2])
    pictures = {
        name: make_batch(base, draws, encoded, other if method.wrong_prompt else encoded, setting, method)
        for name, method in methods.items()
    }
    assert {name: cost["rows"] for name, (_, cost) in pictures.items()} == {
        "standard": 2, "mine": 3, "wrong-prompt-mine": 3,
    }  # fmt: skip
    images = [image for image, _ in pictures.values()]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(images, 2))
    noise = bases.initial_noise(base, [7], 128, 128)
    latents = bases.sample(base, bases.golden(base, npnet, noise, encoded), encoded, setting.schedule, 1.0)
    assert torch.equal(pictures["mine"][0], bases.decode(base, latents))
    with pytest.raises(InputError, match="The net of method mine is for sdxl models"):
        check_methods([methods["mine"]], bases.load_base(folders["sd2"]), [setting], REDENOISING)
    figures = diagnose(base, {"mine": npnet}, [*draws, Draw(PROMPTS[1], None, 8, PROMPTS[0])], setting)
    assert figures["mine"]["prompt dependence"] > 0


def test_what_it_cannot_do_is_refused(datasets, folders, tmp_path):
    for changes, words in (
        ({"compile": True}, "--compile came for an adapter"),
        ({"base": str(folders["sd2"])}, "is of family sd2 and the dataset was made with sdxl"),
    ):
        with pytest.raises(InputError, match=words):
            run(adapter(datasets["sdxl"], tmp_path / "run", **changes))
    with pytest.raises(InputError, match="--rank came, which a net of the architecture npnet does not have"):
        run(options(datasets["sdxl"], tmp_path / "run", rank=4))
    with pytest.raises(InputError, match="--widths came, which a net of the architecture adapter"):
        run(adapter(datasets["sdxl"], tmp_path / "run", widths=(32,)))


def test_another_base_model_of_the_kind_is_said(folders, tmp_path, caplog):
    base = bases.load_base(folders["sdxl"])
    sibling = bases.load_base(tiny_sdxl(tmp_path / "sibling", seed=1))
    config = lively(base).config
    bases.check_adapter(base, config, "mine")
    bases.check_adapter(bases.load_base(folders["sdxl"], precision="bf16"), config, "mine")
    assert "other weights" not in caplog.text
    bases.check_adapter(sibling, config, "mine")
    assert "The net mine was fitted with other weights" in caplog.text
