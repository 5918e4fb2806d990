"""NPNet files: the three published layouts and our own round trip, and what any other file gets."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from npnet_core import atomic_write, checkpoint
from npnet_core.checkpoint import load_npnet, read_npnet, save_npnet
from npnet_core.config import MENDED, PUBLISHED, NPNetConfig
from npnet_core.errors import InputError
from npnet_core.model import NPNet
from tests.seeded import (
    LAYOUTS,
    SMALL,
    VARIANTS,
    Casting,
    published_net,
    published_shapes,
    published_state,
    seeded_tensor,
    small_inputs,
    small_net,
    write_published,
)


def same(npnet: NPNet, expected: NPNet) -> bool:
    """Whether two nets have the same config and bitwise the same weights."""
    ours, theirs = npnet.state_dict(), expected.state_dict()
    return (
        npnet.config == expected.config
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[key], theirs[key]) for key in ours)
    )


def refusal(path: Path) -> str:
    """The sentence that comes instead of a net."""
    with pytest.raises(InputError) as error:
        load_npnet(path)
    sentence = str(error.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert any(remedy in sentence for remedy in ("again", "choose", "check", "use", "give", "update"))
    return sentence


@pytest.fixture
def small_published(monkeypatch):
    """A small net's weights under the published keys, and its config, as if it had been published too."""
    config = NPNetConfig(**SMALL, family="small")
    monkeypatch.setitem(PUBLISHED, "small", config)
    shapes = checkpoint._published_shapes(config) | checkpoint.UNUSED
    assert shapes.keys() < published_shapes().keys()
    return {key: seeded_tensor(key, shape, salt=0) for key, shape in shapes.items()}


# --- the published layouts


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_three_layouts_hold_one_net(tmp_path, variant):
    for layout in LAYOUTS:
        path = write_published(published_state(variant), tmp_path, layout)
        npnet = load_npnet(path)
        assert npnet.config == PUBLISHED[variant]
        assert same(npnet, published_net(variant))
        assert not npnet.training
        assert not any(parameter.requires_grad for parameter in npnet.parameters())
        assert read_npnet(path).layout == layout
        path.unlink()  # 122 MB


def test_no_weight_is_lost_or_doubled():
    state, npnet = published_state("sdxl"), published_net("sdxl")
    kept = [value for key, value in state.items() if key not in checkpoint.UNUSED]
    assert sorted(float(v.double().sum()) for v in kept) == sorted(
        float(v.double().sum()) for v in npnet.state_dict().values()
    )
    assert torch.equal(npnet.alpha, state["alpha"])
    assert torch.equal(npnet.beta, state["beta"])


def test_the_unused_numbers_are_counted(tmp_path, small_published):
    path = write_published(small_published, tmp_path, LAYOUTS[0])
    assert read_npnet(path).unused == 1000 * (768 + 1) + 4 * 256 + 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_files_of_another_precision_become_fp32(tmp_path, small_published, dtype):
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in small_published.items()}
    npnet = load_npnet(write_published(state, tmp_path, LAYOUTS[2]))
    assert {value.dtype for value in npnet.state_dict().values()} == {torch.float32}
    assert torch.equal(npnet.beta, state["beta"].float())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_content_says_what_a_file_is_and_not_its_name(tmp_path, small_published, layout):
    path = write_published(small_published, tmp_path, layout)
    expected = load_npnet(path)
    for name in ("net.pth", "net.safetensors", "net.bin", "net"):
        path = path.rename(tmp_path / name)
        assert same(load_npnet(path), expected)


def test_torch_files_older_than_zip_are_read(tmp_path, small_published):
    expected = load_npnet(write_published(small_published, tmp_path, LAYOUTS[0]))
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_npnet(tmp_path / "old.pth"), expected)


def old_timm_s(state: dict) -> dict:
    """With the two buffers per block that the authors' code saves under timm 0.8.17 … 0.9.5."""
    blocks = {key.rpartition(".attn.qkv.weight")[0] for key in state if key.endswith(".attn.qkv.weight")}
    swin = {block for block in blocks if ".swin.layers." in block}
    indices = {f"{block}.attn.relative_position_index": torch.arange(16).view(4, 4) for block in swin}
    return state | indices | {f"{block}.attn_mask": torch.full((4, 4, 4), -100.0) for block in swin if block[-1] == "1"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_old_timm_computed_and_saved_is_ignored(tmp_path, small_published, layout):
    expected = load_npnet(write_published(small_published, tmp_path, layout))
    path = write_published(old_timm_s(small_published), tmp_path, layout)
    file = read_npnet(path)
    assert same(load_npnet(path), expected)
    assert file.layout == layout
    assert file.unused == 1000 * (768 + 1) + 4 * 256 + 1


def test_a_swin_with_the_names_of_before_is_the_same(tmp_path, small_published):
    """A stage ends with what it begins with today, and the classifier is one layer."""
    expected = load_npnet(write_published(small_published, tmp_path, LAYOUTS[0]))
    earlier = {
        key.replace("layers.1.downsample", "layers.0.downsample").replace("swin.head.fc.", "swin.head."): value
        for key, value in old_timm_s(small_published).items()
    }
    assert earlier.keys() & {"unet_embedding.swin.layers.0.downsample.norm.weight", "unet_embedding.swin.head.bias"}
    assert same(load_npnet(write_published(earlier, tmp_path, LAYOUTS[0])), expected)


def test_timm_s_own_swin_with_its_buffers_is_a_branch_of_a_net(tmp_path, small_published):
    """What timm saves today, plus buffers made persistent as they were, in the net that holds such a Swin."""
    timm = pytest.importorskip("timm")
    swin = timm.models.swin_transformer.SwinTransformer(
        img_size=SMALL["swin_size"],
        window_size=SMALL["swin_window"],
        embed_dim=SMALL["swin_dim"],
        depths=SMALL["swin_depths"],
        num_heads=SMALL["swin_heads"],
        num_classes=0,
    )
    for module in swin.modules():
        module._non_persistent_buffers_set = set()
    theirs = {f"unet_embedding.swin.{key}": value for key, value in swin.state_dict().items()}
    assert any(key.endswith("attn_mask") for key in theirs)
    assert any(key.endswith("relative_position_index") for key in theirs)
    npnet = load_npnet(write_published(small_published | theirs, tmp_path, LAYOUTS[0]))
    assert torch.equal(
        npnet.residual_branch.swin.state_dict()["layers.1.blocks.0.mlp.fc1.weight"],
        swin.state_dict()["layers.1.blocks.0.mlp.fc1.weight"],
    )


@pytest.mark.parametrize("wrapped", ["module.", "_orig_mod.", "module._orig_mod."])
def test_modules_may_have_been_saved_in_their_wrappers(tmp_path, small_published, wrapped):
    """DistributedDataParallel's around each module, torch.compile's around the whole."""
    expected = load_npnet(write_published(small_published, tmp_path, LAYOUTS[0]))
    parts = {key.replace(".", f".{wrapped}", 1): value for key, value in small_published.items()}
    assert same(load_npnet(write_published(parts, tmp_path, LAYOUTS[0])), expected)
    whole_net = {wrapped + key: value for key, value in small_published.items()}
    assert same(load_npnet(write_published(whole_net, tmp_path, LAYOUTS[2])), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_used_may_be_left_out(tmp_path, small_published, layout):
    """A Swin made without its classifier, or a net that was saved anew."""
    expected = load_npnet(write_published(small_published, tmp_path, layout))
    state = {key: value for key, value in small_published.items() if key not in checkpoint.UNUSED}
    path = write_published(state, tmp_path, layout)
    assert read_npnet(path).unused == 0
    assert same(load_npnet(path), expected)


def test_a_net_may_lie_in_a_training_checkpoint(tmp_path, small_published):
    expected = load_npnet(write_published(small_published, tmp_path, LAYOUTS[0]))
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    torch.save({"epoch": 3, "model_state_dict": content, "loss": 0.25}, tmp_path / "net.pth")
    assert same(load_npnet(tmp_path / "net.pth"), expected)


@pytest.mark.parametrize("name", ["state_dict", "model"])
def test_a_net_may_lie_in_a_checkpoint_s_dictionary(tmp_path, small_published, name):
    expected = load_npnet(write_published(small_published, tmp_path, LAYOUTS[0]))
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    torch.save({name: content}, tmp_path / "net.pth")
    assert same(load_npnet(tmp_path / "net.pth"), expected)


@pytest.mark.parametrize("name", ["model", "net", "npnet", "module"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_keeps_beside_the_net_is_ignored(tmp_path, small_published, name, zipped):
    """By its names; what else lies beside it is refused."""
    expected = load_npnet(write_published(small_published, tmp_path, LAYOUTS[0]))
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10).state_dict()
    beside = {"optimizer": optimizer.state_dict(), "scheduler": scheduler, "epoch": 3, "step": torch.tensor(70)}
    beside |= {"config": {"lr": 1e-4, "name": "mine"}}
    path = tmp_path / "checkpoint.pth"
    torch.save({name: content, **beside}, path, _use_new_zipfile_serialization=zipped)
    assert same(load_npnet(path), expected)
    torch.save({name: content, "ema": content, **beside}, path)
    assert "unexpected (ema." in refusal(path)


def test_a_net_may_be_an_attribute_of_what_was_saved(tmp_path, small_published):
    expected = load_npnet(write_published(small_published, tmp_path, LAYOUTS[2]))
    state = {f"net.{key}": value for key, value in small_published.items()}
    assert same(load_npnet(write_published(state, tmp_path, LAYOUTS[2])), expected)


def test_of_two_nets_in_one_file_none_is_chosen(tmp_path, small_published):
    both = {"model": small_published, "net": {key: value + 1 for key, value in small_published.items()}}
    torch.save(both, tmp_path / "both.pth")
    assert "holds more than one net (model." in refusal(tmp_path / "both.pth")


# --- our own files


@pytest.mark.parametrize(
    "changes",
    [{}, MENDED, {"svd_branch": False}, {"text_term": False, "family": "mine"}, {"residual_branch": False}],
)
def test_a_net_survives_saving_and_loading(tmp_path, changes):
    npnet = small_net(**changes)
    save_npnet(npnet, tmp_path / "net.safetensors")
    loaded = load_npnet(tmp_path / "net.safetensors")
    assert same(loaded, npnet)
    assert torch.equal(loaded(*small_inputs()), npnet.requires_grad_(False)(*small_inputs()))
    assert not loaded.training


def test_the_metadata_says_what_the_file_is(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_npnet(small_net(**MENDED), path, {"npnet.base_model": "my base", "npnet.provenance": "fitted on 3 pairs"})
    with safetensors.safe_open(path, "pt") as file:  # as model managers read it
        metadata = file.metadata()
    assert json.loads(metadata["npnet.config"]) == json.loads(json.dumps(small_net(**MENDED).config.to_dict()))
    assert metadata["npnet.base_model"] == "my base"
    assert metadata["npnet.provenance"] == "fitted on 3 pairs"
    assert metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert metadata["modelspec.architecture"] == "npnet"
    assert metadata["modelspec.implementation"] == "npnet-golden-noise"
    assert metadata["modelspec.title"] == "mine"
    assert metadata["modelspec.resolution"] == "128x128"  # 16 latent pixels of 8
    content = path.read_bytes()
    weights = content[8 + struct.unpack("<Q", content[:8])[0] :]
    assert metadata["modelspec.hash_sha256"] == "0x" + hashlib.sha256(weights).hexdigest()


def test_the_metadata_of_a_loaded_net_goes_with_it(tmp_path):
    save_npnet(small_net(), tmp_path / "a", {"npnet.base_model": "my base", "npnet.provenance": "fitted"})
    loaded = load_npnet(tmp_path / "a")
    assert loaded.metadata["npnet.provenance"] == "fitted"
    loaded.beta.data.add_(1)  # the checksum must be made anew
    save_npnet(loaded, tmp_path / "b")
    again = load_npnet(tmp_path / "b")
    assert again.metadata["npnet.base_model"] == "my base"
    assert again.metadata["npnet.provenance"] == "fitted"
    assert again.metadata["modelspec.hash_sha256"] != loaded.metadata["modelspec.hash_sha256"]
    assert same(again, loaded)


def test_a_published_net_saved_as_ours_is_the_same_net(tmp_path, small_published):
    npnet = load_npnet(write_published(small_published, tmp_path, LAYOUTS[0]))
    save_npnet(npnet, tmp_path / "ours")
    assert read_npnet(tmp_path / "ours").layout == "npnet safetensors"
    assert same(load_npnet(tmp_path / "ours"), npnet)


def test_a_net_of_another_type_or_in_training_is_stored_in_fp32(tmp_path):
    npnet = small_net()
    save_npnet(small_net().double().train(), tmp_path / "net")
    assert same(load_npnet(tmp_path / "net"), npnet)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    save_npnet(small_net(0), tmp_path / "net")

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(atomic_write.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_npnet(small_net(1), tmp_path / "net")
    assert same(load_npnet(tmp_path / "net"), small_net(0))
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.skipif(os.name != "posix", reason="rights are other things on Windows")
def test_everyone_may_read_it_whom_the_system_lets_read_new_files(tmp_path):
    save_npnet(small_net(), tmp_path / "net")
    (tmp_path / "other").touch()
    assert (tmp_path / "net").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_layers_may_come_from_elsewhere_and_uninitialised(tmp_path, small_published):
    path = write_published(small_published, tmp_path, LAYOUTS[1])
    npnet = load_npnet(path, operations=Casting)
    assert same(npnet, load_npnet(path))
    assert isinstance(npnet.text_term.linear, Casting.Linear)
    assert torch.isfinite(npnet(*small_inputs())).all()


@pytest.mark.parametrize("layout", [*LAYOUTS, "ours"])
def test_a_loaded_net_needs_its_file_no_more(tmp_path, small_published, layout):
    if layout == "ours":
        path = tmp_path / "net"
        save_npnet(small_net(), path)
    else:
        path = write_published(small_published, tmp_path, layout)
    npnet = load_npnet(path)
    before = npnet(*small_inputs())
    path.write_bytes(bytes(path.stat().st_size))  # the same file, not a new one under its name
    assert torch.equal(npnet(*small_inputs()), before)
    path.write_bytes(b"")
    assert torch.equal(npnet(*small_inputs()), before)


# --- files that are no NPNet


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_wrong_key_is_named_at_once(tmp_path, small_published, layout):
    state = dict(small_published)
    del state["alpha"], state["unet_svd.mlp1.0.weight"]
    state["extra"], state["unet_svd.mlp9.weight"] = torch.ones(1), torch.ones(2, 3)
    state["beta"] = torch.ones(2)
    state["unet_svd.mlp1.0.bias"] = state["unet_svd.mlp1.0.bias"].to(torch.int8)
    sentence = refusal(write_published(state, tmp_path, layout))
    assert "2 missing (alpha, unet_svd.mlp1.0.weight)" in sentence
    assert "2 unexpected (extra, unet_svd.mlp9.weight)" in sentence
    assert "1 misshapen (beta [2] instead of [1])" in sentence
    assert "1 not floating point (unet_svd.mlp1.0.bias)" in sentence


def test_both_spellings_at_once_are_refused(tmp_path, small_published):
    state = small_published | {"embeeding.linear.bias": torch.zeros(8)}
    assert "embeeding.linear.bias" in refusal(write_published(state, tmp_path, LAYOUTS[2]))


def test_another_width_of_prompts_is_misshapen(tmp_path, small_published):
    state = small_published | {"text_embedding.linear.weight": torch.zeros(8, 77 * 768)}
    assert "text_embedding.linear.weight [8, 59136] instead of [8, " in refusal(
        write_published(state, tmp_path, LAYOUTS[2])
    )


def test_wrong_keys_in_our_own_file_are_named(tmp_path):
    save_npnet(small_net(), tmp_path / "net")
    with safetensors.safe_open(tmp_path / "net", "pt") as file:
        config = {"npnet.config": file.metadata()["npnet.config"]}
    tensors = safetensors.torch.load_file(tmp_path / "net")
    tensors["gamma"] = tensors.pop("alpha")
    safetensors.torch.save_file(tensors, tmp_path / "net", config)
    sentence = refusal(tmp_path / "net")
    assert "1 missing (alpha); 1 unexpected (gamma)" in sentence


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "[1]",
        "5",
        "null",
        '"sdxl"',
        "{}",  # the published SDXL net, whose keys are others
        '{"resolution": "16"}',
        '{"resolution": 16.0}',
        '{"swin_heads": 3}',
        '{"swin_heads": [0, 1]}',
        '{"channels": 5}',
        '{"of_the_future": 1}',
        '{"drop_path": "0"}',
    ],
)
def test_a_config_that_makes_no_net_is_refused(tmp_path, config):
    safetensors.torch.save_file(small_net().state_dict(), tmp_path / "net", {"npnet.config": config})
    refusal(tmp_path / "net")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["alpha", "unet_embedding.swin.layers.1.blocks.0.mlp.fc1.weight"])
def test_weights_that_are_not_finite_are_refused(tmp_path, small_published, key, value):
    weights = small_published[key].clone()
    weights.view(-1)[-1] = value
    sentence = refusal(write_published(small_published | {key: weights}, tmp_path, LAYOUTS[0]))
    assert key.rsplit(".", 1)[-1] in sentence
    assert "NaN or infinite" in sentence


def test_a_lora_is_no_npnet(tmp_path):
    key = "lora_unet_down_blocks_1_attentions_0_proj_in"
    lora = {f"{key}.alpha": torch.ones(()), f"{key}.lora_down.weight": torch.ones(4, 8)}
    safetensors.torch.save_file(lora, tmp_path / "lora.safetensors", {"ss_network_dim": "4"})
    sentence = refusal(tmp_path / "lora.safetensors")
    assert f"is not an NPNet (it has keys such as {key}.alpha" in sentence
    assert "choose" in sentence


@pytest.mark.parametrize(
    "content",
    [
        {},
        [torch.ones(1)],
        torch.ones(3),
        "text",
        {0: torch.ones(1), "alpha": torch.ones(1)},
        {"epoch": 3, "alpha": torch.ones(1)},
        {"unet_svd": {"mlp1": {"0.weight": torch.ones(1)}}},
        {"unet_svd": [torch.ones(1)]},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_something_else_are_refused(tmp_path, content, zipped):
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert "choose" in refusal(tmp_path / "net.pth")


class Touch:
    """Unpickled with code allowed, this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", ["zip", "before zip", "pickle"])
def test_code_in_a_pth_does_not_run(tmp_path, write):
    canary, path = tmp_path / "canary", tmp_path / "net.pth"
    content = {"unet_svd": Touch(canary), "alpha": torch.ones(1)}
    if write == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(path.read_bytes())
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "zip")
        torch.load(path, weights_only=False)
    canary.unlink()  # it does run for those who let it
    sentence = refusal(path)
    assert "could run code" in sentence
    assert not canary.exists()


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        assert "There is no file" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"PK", b"\x80", b"\x80\x02}q\x00.", b"hello, world", b"<!DOCTYPE html>"]
)
def test_other_bytes_are_refused(tmp_path, content):
    (tmp_path / "net.safetensors").write_bytes(content)
    sentence = refusal(tmp_path / "net.safetensors")
    assert any(word in sentence for word in ("empty", "damaged", "neither a safetensors nor a PyTorch file"))


# --- damaged files


@pytest.fixture(params=[*LAYOUTS, "ours"])
def intact(request, tmp_path, small_published):
    """A file of each kind."""
    if request.param != "ours":
        return write_published(small_published, tmp_path, request.param)
    save_npnet(small_net(), tmp_path / "net")
    return tmp_path / "net"


def test_a_truncated_file_is_refused(intact):
    content = intact.read_bytes()
    rng = random.Random(0)
    for length in [1, 2, 7, 8, 9, 64, *sorted(rng.sample(range(len(content)), 20)), len(content) - 1]:
        intact.write_bytes(content[:length])
        sentence = refusal(intact)
        assert "damaged" in sentence or "empty" in sentence or "neither" in sentence


def test_a_file_with_something_behind_it_is_refused_or_the_same(intact):
    expected = load_npnet(intact)
    intact.write_bytes(intact.read_bytes() + b"more")
    try:
        npnet = load_npnet(intact)
    except InputError:
        return
    assert same(npnet, expected)


@pytest.mark.parametrize("layout", [LAYOUTS[0], "ours"])
def test_one_changed_bit_of_a_weight_fails_the_checksum(tmp_path, small_published, layout):
    path = tmp_path / "net"
    if layout == "ours":
        npnet = small_net()
        save_npnet(npnet, path)
        weights = npnet.state_dict()["residual_branch.swin.layers.1.blocks.0.mlp.fc1.weight"]
    else:
        path = write_published(small_published, tmp_path, layout)
        weights = small_published["unet_embedding.swin.layers.1.blocks.0.mlp.fc1.weight"]
    content = bytearray(path.read_bytes())
    content[content.index(weights.numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert "checksum" in refusal(path)


def test_a_tensor_marked_as_a_folder_is_refused(tmp_path, small_published):
    path = write_published(small_published, tmp_path, LAYOUTS[0])
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")  # torch would leave this entry's memory uninitialised
    content[directory + 38] |= 0x10
    path.write_bytes(content)
    assert "is marked as a folder" in refusal(path)


def test_a_flipped_bit_is_noticed_or_harmless(intact):
    expected, content = load_npnet(intact), intact.read_bytes()
    rng = random.Random(0)
    if content[:2] == b"PK":  # what a zip says of its parts stands at its end
        places = rng.sample(range(len(content) - 20_000, len(content)), 150) + rng.sample(range(len(content)), 50)
    else:
        weights = 8 + struct.unpack("<Q", content[:8])[0]
        places = rng.sample(range(weights), 150)
        if b"modelspec.hash" in content[:weights]:  # the published files have no checksum of their weights
            places += rng.sample(range(weights, len(content)), 50)
    sentences = []
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        intact.write_bytes(damaged)
        try:
            npnet = load_npnet(intact)
        except InputError as error:
            sentences.append(str(error))
        else:
            assert all(map(torch.equal, npnet.state_dict().values(), expected.state_dict().values())), place
    assert len(sentences) > 50
    assert all(str(intact) in sentence for sentence in sentences)
