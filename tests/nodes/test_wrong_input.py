"""What wrong input gets: an error of one sentence that says what came, what was expected and what to do."""

from __future__ import annotations

import pickle
import shutil

import pytest
import safetensors.torch
import torch

from tests.nodes.conditionings import conditioning
from tests.nodes.errors import NodeFailed, PromptRefused
from tests.nodes.graphs import call
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.sampling import GOLDEN, SEED, custom_sample, empty, ksample
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.tiny_pack.models import tiny_sdxl
from tests.sentences import is_one_sentence

POSITIVE, NEGATIVE = conditioning("sdxl", 1), conditioning("sdxl", 2)


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("The noise is NaN: check the node that makes it.", True),
        ("/models/npnet/a.pth is empty: download it again.", True),
        ("The noise is NaN. Check the node that makes it.", False),
        ("The noise is NaN: check the node. Then try again.", False),
        ("The noise is NaN.", False),
        ("mat1 and mat2 shapes cannot be multiplied (154x768 and 2048x64)", False),
        ("Two lines: the first\nand the second.", False),
    ],
)
def test_what_a_sentence_is(message, verdict):
    assert is_one_sentence(message) == verdict


@pytest.fixture(scope="module")
def file(pack, comfy_base):
    return comfy_base / "models" / "npnet" / save_tiny_npnet(pack, comfy_base)


@pytest.fixture(scope="module")
def npnet(file):
    return call("NPNetLoad", npnet_name=file.name)[0]


@pytest.fixture
def refused(pack):
    """`refused("words", function, …)`: the call raises InputError, in one sentence with these words."""

    def check(words: str, function, *args, **kwargs):
        with pytest.raises(pack.npnet_core.errors.InputError) as failed:
            function(*args, **kwargs)
        message = str(failed.value)
        assert is_one_sentence(message), message
        assert words in message, message

    return check


class Given:
    """A NOISE of given numbers."""

    seed = SEED

    def __init__(self, noise: torch.Tensor):
        self.noise = noise

    def generate_noise(self, latent: dict) -> torch.Tensor:
        return self.noise


def golden_node(npnet, cond=POSITIVE, noise=None, **options):
    noise = noise or call("RandomNoise", noise_seed=SEED)[0]
    return call("NPNetNoise", npnet=npnet, noise=noise, conditioning=cond, **GOLDEN | options)[0]


def patched(npnet, **options):
    return call("NPNetModelPatch", model=tiny_sdxl(), npnet=npnet, **GOLDEN | options)[0]


def sample_given(model, noise: torch.Tensor, cond=POSITIVE) -> torch.Tensor:
    """Sample with given noise and an empty latent of its shape."""
    return custom_sample(Given(noise), model, cond, NEGATIVE, {"samples": torch.zeros_like(noise)})


# ---- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "came"),
    [
        ("sd1", "The conditioning is Stable Diffusion 1.x (768 wide), this NPNet was trained for SDXL (2048 wide)"),
        ("sd2", "The conditioning is Stable Diffusion 2.x (1024 wide), this NPNet was trained for SDXL (2048 wide)"),
        ("sd3", "The conditioning is Stable Diffusion 3.x (4096 wide), this NPNet was trained for SDXL (2048 wide)"),
        ("hunyuan_dit", "The conditioning is HunyuanDiT (1024 wide), this NPNet was trained for SDXL (2048 wide)"),
    ],
)
def test_a_prompt_of_another_family(refused, npnet, family, came):
    refused(came, golden_node, npnet, conditioning(family))
    refused(came, ksample, patched(npnet), conditioning(family), NEGATIVE, empty())


def test_no_prompt(refused, npnet):
    refused("The conditioning is empty", golden_node, npnet, [])
    refused("The conditioning is empty", ksample, patched(npnet), [], NEGATIVE, empty())
    (late,) = call("ConditioningSetTimestepRange", conditioning=POSITIVE, start=0.5, end=1.0)
    refused("No part of the conditioning is active", golden_node, npnet, late)
    refused("No part of the conditioning is active", ksample, patched(npnet), late, NEGATIVE, empty())


def test_every_prompt_switched_off(refused, npnet):
    (off,) = call("ConditioningSetAreaStrength", conditioning=POSITIVE, strength=0.0)
    refused("Every prompt of the conditioning has strength 0", golden_node, npnet, off)
    refused("Every prompt of the conditioning has strength 0", ksample, patched(npnet), off, NEGATIVE, empty())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prompt_that_is_not_finite(refused, npnet, value):
    bad = conditioning("sdxl")
    bad[0][0][0, 5, 7] = value
    refused("The prompt embedding has NaN or infinite values", golden_node(npnet, bad).generate_noise, empty())
    refused("The prompt embedding has NaN or infinite values", ksample, patched(npnet), bad, NEGATIVE, empty())


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "came"),
    [
        ((1, 16, 12, 10), "shape [1, 16, 12, 10] came, [batch, 4, height, width] was expected"),
        ((1, 3, 12, 10), "shape [1, 3, 12, 10] came, [batch, 4, height, width] was expected"),
        ((1, 4, 5, 12, 10), "5 frames came, one frame was expected"),
        ((1, 16, 1, 12, 10), "shape [1, 16, 12, 10] came, [batch, 4, height, width] was expected"),
        ((4, 12, 10), "shape [4, 12, 10] came, [batch, 4, height, width] was expected"),
    ],
)
def test_latents_of_another_kind(refused, npnet, shape, came):
    noise, words = torch.randn(shape), f"Noise of {came}"
    refused(words, golden_node(npnet, noise=Given(noise)).generate_noise, {"samples": noise})
    (guider,) = call("BasicGuider", model=patched(npnet), conditioning=POSITIVE)
    sigmas, sampler = torch.tensor([14.7, 1.0, 0.0]), call("KSamplerSelect", sampler_name="euler")[0]
    refused(words, guider.sample, noise, torch.zeros_like(noise), sampler, sigmas)
    # also where ordinary noise would have passed
    refused(words, guider.sample, torch.zeros_like(noise), noise, sampler, sigmas[1:])


def test_nested_latents(refused, npnet):
    noise = torch.nested.nested_tensor([torch.randn(4, 12, 10), torch.randn(4, 8, 8)])
    refused("A nested latent came", golden_node(npnet, noise=Given(noise)).generate_noise, {"samples": noise})
    (guider,) = call("BasicGuider", model=patched(npnet), conditioning=POSITIVE)
    (sampler,) = call("KSamplerSelect", sampler_name="euler")
    refused("A nested latent came", guider.sample, noise, noise, sampler, torch.tensor([14.7, 0.0]))


def test_nested_latents_that_comfyui_packs(refused, npnet):
    """Picture and sound in one latent: guiders pack them into one row before a model's wrappers see them."""
    nested = pytest.importorskip("comfy.nested_tensor", reason="this ComfyUI packs no latents")
    samples = nested.NestedTensor([torch.zeros(1, 4, 12, 10), torch.zeros(1, 4, 8, 8)])
    (model,) = call("NPNetModelPatch", model=tiny_sdxl(), npnet=npnet, **GOLDEN)
    refused("A nested latent came", ksample, model, POSITIVE, NEGATIVE, {"samples": samples})
    (noise,) = call("RandomNoise", noise_seed=SEED)
    refused("A nested latent came", golden_node(npnet, noise=noise).generate_noise, {"samples": samples})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_noise_that_is_not_finite(refused, npnet, value):
    noise = torch.randn(2, 4, 12, 10)
    noise[1, 2, 3, 4] = value
    words = "The noise has NaN or infinite values"
    refused(words, golden_node(npnet, noise=Given(noise)).generate_noise, empty(2))
    refused(words, sample_given, patched(npnet), noise)


# ---- images ----------------------------------------------------------------------------------------------------------


def test_images_that_are_none(refused, pack, comfy_base):
    (scorer,) = call("NPNetScorerLoad", scorer_name=save_tiny_scorer(pack, comfy_base), kind="auto")
    images = {"source_images": torch.rand(1, 8, 8, 3), "target_images": torch.rand(5)}
    words = "Source images 1 of 8x8 and target images of shape [3] do not match"
    refused(words, call, "NPNetHPSFilter", scorer=scorer, prompt="a fox", margin=0.0, **images)


# ---- strength --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [-0.01, 2.01, float("nan"), float("inf")])
def test_strength_out_of_range(refused, npnet, strength):
    words = f"A strength of {strength} came, 0 to 2 was expected"
    refused(words, golden_node, npnet, strength=strength)
    refused(words, patched, npnet, strength=strength)


def test_a_way_with_long_prompts_that_does_not_exist(refused, npnet):
    words = "long_prompt='middle' came: choose one of truncate, average, recurse"
    refused(words, golden_node(npnet, long_prompt="middle").generate_noise, empty())
    refused(words, ksample, patched(npnet, long_prompt="middle"), POSITIVE, NEGATIVE, empty())


def golden_graph(name: str, strength=1.0) -> dict:
    """A graph that makes a golden NOISE and samples with it."""
    made = {
        "1": ("TinyTestModel", {"seed": 0}),
        "2": ("CLIPTextEncode", {"text": "a red fox", "clip": ["1", 1]}),
        "3": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "4": ("NPNetLoad", {"npnet_name": name}),
        "5": (
            "NPNetModelPatch",
            {"model": ["1", 0], "npnet": ["4", 0], "strength": strength, "long_prompt": "average"},
        ),
        "6": (
            "KSampler",
            {"model": ["5", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "seed": SEED}
            | {"steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
        ),
        "7": ("VAEDecode", {"samples": ["6", 0], "vae": ["1", 2]}),
        "8": ("PreviewImage", {"images": ["7", 0]}),
        "9": ("PrimitiveFloat", {"value": 2.5}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in made.items()}


def test_strength_in_a_graph(run_graph, file):
    with pytest.raises(PromptRefused, match=r"Value 2.5 bigger than max of 2.0"):
        run_graph(golden_graph(file.name, 2.5))
    with pytest.raises(NodeFailed) as failed:  # validation does not see what comes through a link
        run_graph(golden_graph(file.name, ["9", 0]))
    assert (failed.value.node_id, failed.value.class_type) == ("5", "NPNetModelPatch")
    assert str(failed.value).startswith("A strength of 2.5 came, 0 to 2 was expected")
    assert is_one_sentence(str(failed.value))


# ---- files -----------------------------------------------------------------------------------------------------------


class Code:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("this must never be seen",)


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def pickled(tmp_path, value) -> bytes:
    torch.save(value, tmp_path / "pickled")
    return (tmp_path / "pickled").read_bytes()


LORA = {"lora_unet_mid.lora_up.weight": torch.ones(4, 2), "lora_unet_mid.lora_down.weight": torch.ones(2, 4)}
HALF = {"alpha": torch.ones(1), "unet_svd.mlp1.0.weight": torch.ones(3)}
NO_FILE = "neither a safetensors nor a PyTorch file: get the file again"
# what is wrong: (file name, its content from a good file's and a scratch folder, words of the message)
BAD_FILES = {
    "truncated": (
        "a.safetensors",
        lambda good, _: good[: len(good) // 2],
        "truncated or damaged, get the file again",
    ),
    "truncated header": ("a.safetensors", lambda good, _: good[:100], "truncated or damaged, get the file again"),
    "empty": ("a.safetensors", lambda good, _: b"", "is empty: get the file again"),
    "bit flipped": ("a.safetensors", lambda good, _: flip_a_bit(good), "do not match their checksum, get the file"),
    "bit flipped in the config": (
        "a.safetensors",
        lambda good, _: good.replace(b'channels\\":', b'channels\\";'),
        "a config that cannot be read",
    ),
    "a picture, renamed": ("a.pth", lambda good, _: b"\x89PNG\r\n" + good, NO_FILE),
    "a web page": ("a.safetensors", lambda good, _: b"<!DOCTYPE html>", NO_FILE),
    "with code": ("a.pth", lambda _, tmp: pickled(tmp, {"alpha": Code()}), "could run code when unpickled"),
    "with code, old": ("a.pt", lambda _, __: pickle.dumps({"alpha": Code()}, 2), "could run code when unpickled"),
    "a LoRA": ("a.safetensors", lambda _, __: safetensors.torch.save(LORA), "is not an NPNet (it has keys such as"),
    "a LoRA, pickled": ("a.pth", lambda _, tmp: pickled(tmp, LORA), "is not an NPNet (it has keys such as lora_unet"),
    "a list": ("a.pth", lambda _, tmp: pickled(tmp, [1, 2]), "holds a list, not a model's weights"),
    "half an NPNet": (
        "a.safetensors",
        lambda _, __: safetensors.torch.save(HALF),
        "does not have the keys of its kind",
    ),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_files(run_graph, executor, file, tmp_path, bad, capsys):
    name, content, words = BAD_FILES[bad]
    path = file.parent / name
    path.write_bytes(content(file.read_bytes(), tmp_path))
    try:
        with pytest.raises(NodeFailed) as failed:
            run_graph(golden_graph(name), executor=executor)
        assert (failed.value.node_id, failed.value.class_type) == ("4", "NPNetLoad")
        message = str(failed.value)
        assert message.startswith(str(path)), message
        assert words in message, message
        assert is_one_sentence(message), message
        assert "never be seen" not in capsys.readouterr().out

        shutil.copy(file, path)  # the user gets the file again and presses Run
        assert run_graph(golden_graph(name), executor=executor).values["7"][0].isfinite().all()
    finally:
        path.unlink()


def test_a_file_that_is_gone(refused, run_graph, file):
    words = "There is no gone.safetensors in models/npnet: put it there or choose one that is there ("
    refused(words, call, "NPNetLoad", npnet_name="gone.safetensors")
    with pytest.raises((NodeFailed, PromptRefused), match=r"gone\.safetensors"):  # ComfyUI from some version on says it
        run_graph(golden_graph("gone.safetensors"))


def test_the_name_of_a_file_does_not_matter(file):
    renamed = file.with_name("renamed.pth")
    shutil.copy(file, renamed)
    assert call("NPNetLoad", npnet_name=renamed.name)[0].config.resolution == 16
    renamed.unlink()
