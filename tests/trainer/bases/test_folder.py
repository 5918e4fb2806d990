"""Folders and the hub's cache in the forms that people have them; nothing missing, nothing left over."""

from __future__ import annotations

import json
import re
import shutil

import diffusers
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from npnet_core.errors import InputError
from tests import tiny_pipelines
from trainer.bases import fingerprint, load_base
from trainer.bases.folder import best_form

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pipelines.tiny_sdxl(tmp_path_factory.mktemp("folder") / "plain")


@pytest.fixture(scope="module")
def pipe(folder):
    return diffusers.StableDiffusionXLPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def expected(folder):
    return fingerprint(load_base(folder))


def fp16(pipe, folder, **options):
    pipe.save_pretrained(folder, variant="fp16", **options)
    return folder


# Each part in the form that is there


@pytest.mark.parametrize("shards", ["5GB", "100KB"])
def test_all_of_it_in_fp16(pipe, expected, tmp_path, shards):
    folder = fp16(pipe, tmp_path, max_shard_size=shards)
    assert len(list(folder.glob("unet/*.safetensors"))) == 1 or shards == "100KB"
    assert fingerprint(load_base(folder)) == expected


def test_shards_of_the_plain_form(pipe, expected, tmp_path):
    pipe.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("unet/*.safetensors"))) > 2
    assert fingerprint(load_base(tmp_path)) == expected


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "text_encoder_2"])
def test_one_part_replaced(pipe, expected, tmp_path, part):
    folder = fp16(pipe, tmp_path)
    for file in (folder / part).glob("*.fp16.safetensors"):
        file.rename(file.with_name(file.name.replace(".fp16", "")))
    assert fingerprint(load_base(folder)) == expected


def test_the_plain_form_goes_first(pipe, expected, tmp_path):
    folder = fp16(pipe, tmp_path)
    pipe.save_pretrained(folder)
    weights = load_file(folder / f"{UNET}.fp16.safetensors")
    save_file({key: torch.zeros_like(value) for key, value in weights.items()}, folder / f"{UNET}.fp16.safetensors")
    assert fingerprint(load_base(folder)) == expected


def test_shards_that_are_not_all_there_are_no_form(pipe, expected, tmp_path):
    """As a download that was stopped leaves them."""
    folder = fp16(pipe, tmp_path)
    pipe.unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    next(folder.glob(f"{UNET}-00002-*")).unlink()
    assert fingerprint(load_base(folder)) == expected


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (["model.safetensors"], ""),
        (["model.safetensors", "model.fp16.safetensors"], ""),
        (["model.fp16.safetensors", "model.bin", "config.json"], "fp16"),
        (["diffusion_pytorch_model.non_ema.safetensors"], "non_ema"),
        (["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"], "fp16"),
        (["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"], "fp16"),
        (["model-00001-of-00002.safetensors"], None),
        (["model-00001-of-00002.safetensors", "model.fp16.safetensors"], "fp16"),
        (["pytorch_lora_weights.safetensors", "._model.safetensors"], None),
        ([], None),
    ],
)
def test_forms(names, form):
    assert best_form(names) == form


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """`cache("owner/name", fill)`: a model in the hub's cache of a machine without network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def make(name, fill):
        repository = tmp_path / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs/main").write_text("a" * 40)
        fill(repository / "snapshots" / ("a" * 40))
        return name

    return make


def test_only_fp16_in_the_hubs_cache(cache, pipe, expected):
    assert fingerprint(load_base(cache("owner/half", lambda folder: fp16(pipe, folder)))) == expected


def test_a_part_that_the_hubs_cache_does_not_have(cache, pipe):
    def fill(folder):
        shutil.rmtree(fp16(pipe, folder) / "vae")

    with pytest.raises(InputError, match="download it first if this machine is offline"):
        load_base(cache("owner/partial", fill))


# ControlNets


@pytest.fixture(scope="module")
def controlnet(pipe):
    torch.manual_seed(0)
    return diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8, 16, 16))


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}, {"variant": "fp16", "max_shard_size": "100KB"}])
def test_controlnets_in_every_form(folder, controlnet, cache, tmp_path, options):
    controlnet.save_pretrained(tmp_path / "controlnet", **options)
    name = cache("owner/controlnet", lambda snapshot: controlnet.save_pretrained(snapshot, **options))
    for source in (tmp_path / "controlnet", name):
        loaded = load_base(folder, controlnet=source).controlnet.state_dict()
        for key, value in controlnet.state_dict().items():
            torch.testing.assert_close(loaded[key], value, rtol=0, atol=0)


def test_controlnets_that_are_not_what_is_needed(folder, controlnet, pipe, tmp_path):
    pipe.unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(InputError, match="holds a UNet2DConditionModel where a ControlNetModel is needed"):
        load_base(folder, controlnet=tmp_path / "unet")
    sd = load_base(tiny_pipelines.tiny_sd(tmp_path / "sd"))
    controlnet = diffusers.ControlNetModel.from_unet(sd.network, conditioning_embedding_out_channels=(8, 8, 16, 16))
    controlnet.save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=r"is made for prompts 32 wide and .* has them 64 wide"):
        load_base(folder, controlnet=tmp_path / "other")


def test_a_controlnet_s_single_file(folder, controlnet, tmp_path):
    controlnet.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"There is no ControlNet folder .*: .* single files are not read"):
        load_base(folder, controlnet=tmp_path / "diffusion_pytorch_model.safetensors")


def test_controlnets_that_pool_their_picture(folder, controlnet, tmp_path):
    controlnet.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"global_pool_conditions": True}))
    with pytest.raises(InputError, match="pools its picture"):
        load_base(folder, controlnet=tmp_path)


# What the libraries only warn about


@pytest.fixture
def broken(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "broken")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
@pytest.mark.parametrize(("change", "message"), [("drop", "not in it: "), ("add", r"left over: more\.weight")])
def test_weights_that_are_missing_or_left_over(broken, part, change, message):
    (file,) = (broken / part).glob("*.safetensors")
    weights = load_file(file)
    if change == "drop":
        del weights[max(weights)]
    else:
        weights["more.weight"] = torch.zeros(3)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=message) as caught:
        load_base(broken)
    assert str(broken) in str(caught.value)


def test_what_a_text_encoder_was_saved_with_is_no_fault(broken, expected):
    """Old files keep the position's numbers, and those of CLIP's whole models the picture side."""
    (file,) = (broken / "text_encoder").glob("*.safetensors")
    more = {"text_model.embeddings.position_ids": torch.arange(77)[None], "logit_scale": torch.ones(())}
    more |= {"lm_head.weight": torch.ones(4, 4)}  # a language model's
    save_file(load_file(file) | more, file, {"format": "pt"})
    assert fingerprint(load_base(broken)) == expected


def test_quantised_folders_are_refused(broken):
    config = json.loads((broken / "unet/config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (broken / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"quantised UNet2DConditionModel \(bitsandbytes\)"):
        load_base(broken)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model.fp16"),
        ("text_encoder", "model"),
        ("text_encoder_2", "model.fp16"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_whole_numbers_are_no_weights(broken, part, name, dtype):
    """The loaders cast them in silence."""
    plain = next((broken / part).glob("*.safetensors"))
    tensors = load_file(plain)
    key = next(key for key, value in tensors.items() if value.ndim == 2)
    plain.unlink()
    save_file(tensors | {key: (tensors[key] * 127).to(dtype)}, broken / part / f"{name}.safetensors", {"format": "pt"})
    named = rf"quantised \w+ \({re.escape(key)} is of type {'U8' if dtype is torch.uint8 else 'I'}"
    with pytest.raises(InputError, match=named):
        load_base(broken)


def test_one_shard_of_whole_numbers(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, max_shard_size="100KB")
    last = sorted(tmp_path.glob("unet/*.safetensors"))[-1]
    tensors = load_file(last)
    save_file({key: value.to(torch.int8) for key, value in tensors.items()}, last, {"format": "pt"})
    with pytest.raises(InputError, match="quantised UNet2DConditionModel"):
        load_base(tmp_path)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_tokenizers_that_do_not_know_their_length(broken, part):
    (broken / part / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match=r"its tokenizer_config\.json is missing"):
        load_base(broken)


def test_autoencoders_that_shift_each_channel(broken):
    file = broken / "vae/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"latents_mean": [0.1] * 4, "latents_std": [2.0] * 4}))
    with pytest.raises(InputError, match="latents_mean"):
        load_base(broken)


@pytest.mark.parametrize("change", [{"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}])
def test_flow_settings_of_a_diffusion_scheduler_are_refused(broken, change):
    file = broken / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match="only models that predict epsilon or v"):
        load_base(broken)
