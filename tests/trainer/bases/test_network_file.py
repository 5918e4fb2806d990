"""A transformer in one file, in ComfyUI's layout and in diffusers', beside the folder that has all else."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from npnet_core.errors import InputError
from tests import tiny_pipelines
from trainer.bases import Schedule, encode, fingerprint, initial_noise, load_base, sample

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
Z_IMAGE = {"all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder."}
Z_IMAGE |= {".attention.to_out.0.": ".attention.out.", ".norm_k.": ".k_norm.", ".norm_q.": ".q_norm."}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two Z-Images: what one file holds, and the folder for all else, whose transformer is another."""
    root = tmp_path_factory.mktemp("files")
    folders = tiny_pipelines.tiny_z_image(root / "one"), tiny_pipelines.tiny_z_image(root / "other")
    weights = load_file(folders[1] / WEIGHTS)
    save_file({name: weight + 1 for name, weight in weights.items()}, folders[1] / WEIGHTS)
    return folders


def comfyui(weights):
    """Z-Image's original layout: queries, keys and values in one matrix."""
    renamed = {}
    for name, weight in weights.items():
        for theirs, ours in Z_IMAGE.items():
            name = name.replace(theirs, ours)
        renamed[name] = weight
    for name in [name for name in renamed if name.endswith(".attention.to_q.weight")]:
        parts = [renamed.pop(name.replace("to_q", f"to_{part}")) for part in "qkv"]
        renamed[name.replace("to_q", "qkv")] = torch.cat(parts)
    return renamed


@pytest.mark.parametrize(("layout", "prefix"), [(comfyui, ""), (comfyui, "model.diffusion_model."), (dict, "")])
def test_a_transformer_from_one_file(folders, tmp_path, layout, prefix):
    weights = layout(load_file(folders[0] / WEIGHTS))
    file = tmp_path / "z_image.safetensors"
    save_file({prefix + name: weight.contiguous() for name, weight in weights.items()}, file)
    base, expected = load_base(file, config=folders[1]), load_base(folders[0])
    assert fingerprint(base) == fingerprint(expected)
    noise, prompts = initial_noise(base, [1], 64, 64), encode(base, ["a red circle"])
    ours, theirs = (sample(each, noise, prompts, Schedule("euler", 2), 3.0) for each in (base, expected))
    assert torch.equal(ours, theirs)


def test_a_checkpoint_holds_other_parts_too(folders, tmp_path):
    """As SD3.5's published files hold their autoencoder, and others text encoders in fp8."""
    weights = comfyui(load_file(folders[0] / WEIGHTS))
    weights = {f"model.diffusion_model.{name}": weight.contiguous() for name, weight in weights.items()}
    others = {"first_stage_model.decoder.conv_in.weight": torch.ones(8, 4)}
    others |= {"text_encoders.t5xxl.scaled_fp8": torch.ones(1)}
    file = tmp_path / "checkpoint.safetensors"
    save_file(weights | others, file)
    base, expected = load_base(file, config=folders[1]), load_base(folders[0])
    assert fingerprint(base) == fingerprint(expected)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_other_families_in_diffusers_layout(tmp_path, kind):
    folder = getattr(tiny_pipelines, f"tiny_{kind}")(tmp_path / kind)
    base = load_base(folder / WEIGHTS, config=folder)
    assert fingerprint(base) == fingerprint(load_base(folder))


def dropped(weights):
    return {name: weight for name, weight in weights.items() if "layers.1.attention_norm2" not in name}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (dropped, "lacks weights of its transformer"),
        (
            lambda weights: comfyui(weights) | {"other.weight": torch.zeros(3)},
            r"holds [\d,]+ numbers where a ZImageTra",
        ),
        (lambda weights: weights | {"a.scaled_fp8": torch.zeros(1)}, "holds quantised weights"),
    ],
)
def test_files_that_hold_less_or_more(folders, tmp_path, damage, message):
    file = tmp_path / "z_image.safetensors"
    save_file(damage(load_file(folders[0] / WEIGHTS)), file)
    with pytest.raises(InputError, match=re.compile(message)) as caught:
        load_base(file, config=folders[1])
    assert "\n" not in str(caught.value)
