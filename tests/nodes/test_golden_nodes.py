"""Load NPNet, NPNet Golden Noise and NPNet Golden Noise (Model), each by itself."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil

import folder_paths
import pytest
import torch
import utils.extra_config
from comfy_execution.utils import CurrentNodeContext
from server import PromptServer

import nodes
from tests.nodes.conditionings import conditioning
from tests.nodes.graphs import call
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.sampling import (
    GOLDEN,
    SEED,
    custom_sample,
    empty,
    ksample,
    picture,
    source_noise,
    watched,
)
from tests.nodes.tiny_pack.models import tiny_sdxl
from tests.seeded import (
    difference,
    published_inputs,
    published_net,
    published_outputs,
    published_state,
    write_published,
)

POSITIVE, NEGATIVE = conditioning("sdxl", 1), conditioning("sdxl", 2)
PROMPT = POSITIVE[0][0]


@pytest.fixture(scope="module")
def file(pack, comfy_base):
    return comfy_base / "models" / "npnet" / save_tiny_npnet(pack, comfy_base)


@pytest.fixture(scope="module")
def unet(pack, comfy_base):
    return comfy_base / "models" / "npnet" / save_tiny_npnet(pack, comfy_base, arch="unet")


@pytest.fixture(scope="module")
def npnet(file):
    """NPNET: a tiny net as the node loads it."""
    return call("NPNetLoad", npnet_name=file.name)[0]


@pytest.fixture(scope="module")
def golden(pack, file):
    """golden_noise of the core for the same file, without ComfyUI's layers and memory management."""
    net = pack.npnet_core.checkpoint.load_npnet(file)
    return lambda noise, prompt=PROMPT, **options: pack.npnet_core.golden.golden_noise(net, noise, prompt, **options)


@pytest.fixture
def patched(npnet):
    """`patched(model, strength=…, long_prompt=…)`: the MODEL of NPNet Golden Noise (Model)."""
    return lambda model, **options: call("NPNetModelPatch", model=model, npnet=npnet, **GOLDEN | options)[0]


@pytest.fixture
def golden_node(npnet):
    """`golden_node(seed=…, strength=…)`: the NOISE of NPNet Golden Noise."""

    def make(cond=POSITIVE, seed=SEED, noise=None, **options):
        noise = noise or call("RandomNoise", noise_seed=seed)[0]
        return call("NPNetNoise", npnet=npnet, noise=noise, conditioning=cond, **GOLDEN | options)[0]

    return make


# ---- Load NPNet -----------------------------------------------------------------------------------------------------


def listed() -> list[str]:
    return nodes.NODE_CLASS_MAPPINGS["NPNetLoad"].INPUT_TYPES()["required"]["npnet_name"][1]["options"]


def test_lists_both_folders_and_only_weights(file, comfy_base):
    other = comfy_base / "models" / "npnets" / "mine"
    other.mkdir(parents=True)
    shutil.copy(file, other / "other.safetensors")
    for name in ("readme.txt", "net.ckpt", "half.safetensors.partial"):
        (other / name).write_text("no weights")
    (other / "released.pth").touch()
    (other / "._other.safetensors").touch()  # macOS's, beside a file
    found = [name for name in listed() if name.startswith("mine")]
    assert found == ["mine/other.safetensors", "mine/released.pth"]
    assert file.name in listed()
    (npnet,) = call("NPNetLoad", npnet_name="mine/other.safetensors")
    assert npnet.config.resolution == 16
    shutil.rmtree(other)


def test_reads_extra_model_paths(pack, file, tmp_path, monkeypatch):
    """As at ComfyUI's start: first extra_model_paths.yaml, then the pack, with a key of either name."""
    for folder in ("theirs", "shared"):
        (tmp_path / folder).mkdir()
        shutil.copy(file, tmp_path / folder / f"{folder}.safetensors")
    config = tmp_path / "extra_model_paths.yaml"
    config.write_text(f"elsewhere:\n  base_path: {tmp_path}\n  npnet: shared\n  npnets: theirs\n")
    others = {key: value for key, value in folder_paths.folder_names_and_paths.items() if not key.startswith("npnet")}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", others)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    utils.extra_config.load_extra_path_config(str(config))
    pack.nodes.folders.add_model_folder("npnet", "npnets")
    assert {"theirs.safetensors", "shared.safetensors", file.name} <= set(listed())
    for name in ("theirs.safetensors", "shared.safetensors"):
        assert call("NPNetLoad", npnet_name=name)[0].config.resolution == 16


def graph(name: str) -> dict:
    """KSampler with a model patch, and SamplerCustomAdvanced with a golden NOISE, for the same seed and prompt."""
    prompts = {"positive": ["2", 0], "negative": ["3", 0]}
    sampling = {"steps": 3, "scheduler": "normal", "denoise": 1.0}
    npnet = {"npnet": ["5", 0], "strength": 1.0, "long_prompt": "truncate"}
    made = {
        "1": ("TinyTestModel", {"seed": 0}),
        "2": ("CLIPTextEncode", {"text": "a red fox", "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": "", "clip": ["1", 1]}),
        "4": ("EmptyLatentImage", {"width": 96, "height": 64, "batch_size": 2}),
        "5": ("NPNetLoad", {"npnet_name": name}),
        "6": ("NPNetModelPatch", {"model": ["1", 0], **npnet}),
        "7": (
            "KSampler",
            {"model": ["6", 0], "latent_image": ["4", 0], "seed": SEED, "cfg": 5.5, "sampler_name": "euler"}
            | prompts
            | sampling,
        ),
        "8": ("RandomNoise", {"noise_seed": SEED}),
        "9": ("NPNetNoise", {"noise": ["8", 0], "conditioning": ["2", 0], **npnet}),
        "10": ("CFGGuider", {"model": ["1", 0], "cfg": 5.5, **prompts}),
        "11": ("KSamplerSelect", {"sampler_name": "euler"}),
        "12": ("BasicScheduler", {"model": ["1", 0], **sampling}),
        "13": (
            "SamplerCustomAdvanced",
            {
                "noise": ["9", 0],
                "guider": ["10", 0],
                "sampler": ["11", 0],
                "sigmas": ["12", 0],
                "latent_image": ["4", 0],
            },
        ),
        "14": ("VAEDecode", {"samples": ["7", 0], "vae": ["1", 2]}),
        "15": ("VAEDecode", {"samples": ["13", 0], "vae": ["1", 2]}),
        "16": ("PreviewImage", {"images": ["14", 0]}),
        "17": ("PreviewImage", {"images": ["15", 0]}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in made.items()}


def test_reloads_when_the_file_changes_and_only_then(run_graph, executor, pack, comfy_base):
    folder = comfy_base / "models" / "npnet"
    name = "changing.safetensors"
    shutil.copy(folder / save_tiny_npnet(pack, comfy_base, seed=1), folder / name)
    first = run_graph(graph(name), executor=executor)
    again = run_graph(graph(name), executor=executor)
    assert again.values["5"][0] is first.values["5"][0]

    shutil.copy(folder / save_tiny_npnet(pack, comfy_base, seed=2), folder / name)
    changed = run_graph(graph(name), executor=executor)
    assert changed.values["5"][0] is not first.values["5"][0]
    for node_id in ("14", "15"):
        assert not torch.allclose(changed.values[node_id][0], first.values[node_id][0], atol=1e-3)
        fresh = run_graph(graph("tiny-sdxl-2.safetensors"))
        assert torch.equal(changed.values[node_id][0], fresh.values[node_id][0])


# ---- NPNet Golden Noise ---------------------------------------------------------------------------------------------


def test_the_same_graph_gives_the_same_picture_from_both_nodes(run_graph, file):
    result, again = run_graph(graph(file.name)), run_graph(graph(file.name))
    image = result.values["14"][0]
    assert image.shape == (2, 64, 96, 3)
    assert image.std() > 0.01
    assert torch.equal(image, result.values["15"][0])
    assert torch.equal(image, again.values["14"][0])


def test_a_noise_is_frozen_and_keeps_the_seed(golden_node):
    noise = golden_node(seed=2**64 - 1)
    assert noise.seed == 2**64 - 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        noise.strength = 0.5
    latent = picture()
    before = latent["samples"].clone()
    assert torch.equal(noise.generate_noise(latent), noise.generate_noise(latent))
    assert torch.equal(latent["samples"], before)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20), (13, 7), (31, 33)])
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_is_the_golden_noise_of_the_core(golden_node, golden, height, width, strength):
    latent = empty(3, height, width)
    noise = source_noise(latent)
    found = golden_node(strength=strength).generate_noise(latent)
    assert not torch.allclose(found, noise, atol=0.1)
    torch.testing.assert_close(found, golden(noise, strength=strength), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, torch.lerp(noise, golden(noise), strength), rtol=1e-5, atol=1e-5)


def test_no_strength_gives_the_source(golden_node):
    latent = picture(2)
    assert torch.equal(golden_node(strength=0.0).generate_noise(latent), source_noise(latent))


def test_item_of_a_batch_is_that_item_alone(golden_node):
    whole = golden_node().generate_noise(empty(4))
    assert torch.equal(golden_node().generate_noise({**empty(2), "batch_index": [3, 1]}), whole[[3, 1]])


def test_two_prompts_give_two_noises(golden_node):
    one, other = (golden_node(conditioning("sdxl", seed)).generate_noise(empty()) for seed in (1, 2))
    assert not torch.allclose(one, other, atol=1e-2)


def test_a_prompt_for_all_or_one_for_each(golden_node):
    prompts = [conditioning("sdxl", seed)[0][0] for seed in (1, 2)]
    both = golden_node([[torch.cat(prompts), {**POSITIVE[0][1]}]]).generate_noise(empty(2))
    for i, prompt in enumerate(prompts):
        alone = golden_node([[prompt, {**POSITIVE[0][1]}]]).generate_noise(empty(2))
        assert torch.equal(both[i], alone[i])


def test_no_noise_stays_none(golden_node):
    (none,) = call("DisableNoise")
    assert not golden_node(noise=none).generate_noise(picture()).any()
    assert golden_node(noise=none).seed == none.seed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_noise_keeps_its_type(golden_node, golden, dtype):
    latent = {"samples": empty()["samples"].to(dtype)}
    noise = source_noise(latent)
    found = golden_node().generate_noise(latent)
    assert noise.dtype == found.dtype == dtype
    assert torch.equal(found, golden(noise.float()).to(dtype))  # computed in fp32


@pytest.mark.parametrize("long_prompt", ["truncate", "average", "recurse"])
def test_long_prompts(golden_node, golden, long_prompt):
    cond = conditioning("sdxl", 1, tokens=154)
    found = golden_node(cond, long_prompt=long_prompt).generate_noise(empty())
    assert torch.equal(found, golden(source_noise(empty()), cond[0][0], long_prompt=long_prompt))
    short = golden(source_noise(empty()), cond[0][0][:, :77])
    assert torch.allclose(found, short, atol=1e-3) == (long_prompt == "truncate")


@pytest.mark.parametrize(("height", "width", "tokens"), [(16, 16, 77), (13, 7, 154)])
def test_a_unet_is_given_size_and_prompt_as_they_are(pack, unet, height, width, tokens):
    latent, cond = empty(2, height, width), conditioning("sdxl", 1, tokens=tokens)
    noise, core = source_noise(latent), pack.npnet_core
    (npnet,), (source,) = call("NPNetLoad", npnet_name=unet.name), call("RandomNoise", noise_seed=SEED)
    expected = core.golden.golden_noise(core.checkpoint.load_npnet(unet), noise, cond[0][0])
    assert not torch.allclose(expected, noise, atol=0.1)
    for long_prompt in core.golden.LONG_PROMPT:
        options = GOLDEN | {"long_prompt": long_prompt}
        (golden,) = call("NPNetNoise", npnet=npnet, noise=source, conditioning=cond, **options)
        torch.testing.assert_close(golden.generate_noise(latent), expected, rtol=1e-5, atol=1e-5)


def test_a_unet_patches_the_model(unet):
    model, (npnet,) = tiny_sdxl(), call("NPNetLoad", npnet_name=unet.name)
    (golden_model,) = call("NPNetModelPatch", model=model, npnet=npnet, **GOLDEN)
    pictures = [ksample(each, POSITIVE, NEGATIVE, empty(1, 12, 20)) for each in (model, golden_model)]
    assert not torch.allclose(*pictures, atol=1e-3)


def test_a_golden_noise_of_a_golden_noise_applies_the_net_twice(golden_node, golden):
    twice = golden_node(noise=golden_node()).generate_noise(empty())
    torch.testing.assert_close(twice, golden(golden(source_noise(empty()))), rtol=1e-5, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Given:
    """A NOISE of given numbers."""

    noise: torch.Tensor
    seed: int = SEED

    def generate_noise(self, latent: dict) -> torch.Tensor:
        return self.noise


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("sdxl", {"pooled_output": torch.zeros(1, 1280)}),
        ("hunyuan-dit", {"conditioning_mt5xl": torch.zeros(1, 256, 2048)}),
    ],
)
def test_published_files_compute_what_was_published(comfy_base, family, extra):
    file = write_published(published_state(family), comfy_base / "models" / "npnet", "released .pth")
    (npnet,) = call("NPNetLoad", npnet_name=file.name)
    noise, prompt = published_inputs(family)
    (golden,) = call("NPNetNoise", npnet=npnet, noise=Given(noise), conditioning=[[prompt, extra]], **GOLDEN)
    found = golden.generate_noise({"samples": torch.zeros_like(noise)})
    assert (
        difference(found, published_outputs(family)["golden"]) < 1e-3
    )  # which LAPACK, how many threads: test_npnet.py
    net = published_net(family)
    with torch.no_grad():
        assert torch.equal(found, torch.cat([net(*one) for one in zip(noise.split(1), prompt.split(1), strict=True)]))
    file.unlink()


# ---- NPNet Golden Noise (Model) -------------------------------------------------------------------------------------


def test_patching_leaves_the_model_as_it_was(patched):
    model = tiny_sdxl()
    before = ksample(model, POSITIVE, NEGATIVE, empty())
    golden_model = patched(model)
    assert golden_model is not model
    assert not torch.allclose(ksample(golden_model, POSITIVE, NEGATIVE, empty()), before, atol=1e-3)
    assert torch.equal(ksample(model, POSITIVE, NEGATIVE, empty()), before)


def test_no_strength_gives_the_picture_of_the_source(patched):
    """Also with a sampler that draws noise on its way: the net takes nothing from any random stream."""
    model, changes = tiny_sdxl(), {"sampler_name": "euler_ancestral", "scheduler": "karras"}
    plain = ksample(model, POSITIVE, NEGATIVE, empty(2), **changes)
    assert torch.equal(ksample(patched(model, strength=0.0), POSITIVE, NEGATIVE, empty(2), **changes), plain)


def test_the_global_random_stream_is_not_touched(golden_node):
    latent = empty()
    source = call("RandomNoise", noise_seed=SEED)[0].generate_noise(latent)
    after_source = torch.get_rng_state()
    golden = golden_node().generate_noise(latent)  # which draws the same source
    assert not torch.equal(source, golden)
    assert torch.equal(torch.get_rng_state(), after_source)


def test_patched_twice_applies_the_net_twice(patched, golden):
    model, seen = watched(patched(patched(tiny_sdxl())))
    ksample(model, POSITIVE, NEGATIVE, empty())
    torch.testing.assert_close(seen[0], golden(golden(source_noise(empty()))), rtol=1e-5, atol=1e-5)


def test_both_nodes_at_once_apply_the_net_twice(patched, golden_node, golden):
    model, seen = watched(patched(tiny_sdxl()))
    custom_sample(golden_node(), model, POSITIVE, NEGATIVE, empty())
    torch.testing.assert_close(seen[0], golden(golden(source_noise(empty()))), rtol=1e-5, atol=1e-5)


@pytest.fixture
def passes_with(caplog):
    """Assert that sampling with the patched model is sampling without it, and that the log says so once a run."""

    def check(npnet, sample):
        model = tiny_sdxl()
        (patched,) = call("NPNetModelPatch", model=model, npnet=npnet, **GOLDEN)
        with caplog.at_level(logging.INFO):
            assert torch.equal(sample(patched), sample(model))
        assert [r.getMessage() for r in caplog.records if "NPNet: " in r.getMessage()] == [
            "NPNet: sampling does not start from noise here, so the noise is left as it is."
        ]

    return check


@pytest.fixture
def passes(passes_with, npnet):
    return lambda sample: passes_with(npnet, sample)


def test_passes_in_img2img(passes):
    passes(lambda model: ksample(model, POSITIVE, NEGATIVE, picture(), denoise=0.6))


def advanced(model, latent, **changes):
    settings = {
        "add_noise": "enable", "start_at_step": 0, "end_at_step": 10000, "return_with_leftover_noise": "disable",
        "steps": 4, "cfg": 5.5, "sampler_name": "euler", "scheduler": "normal",
    } | changes  # fmt: skip
    (out,) = call(
        "KSamplerAdvanced",
        model=model, noise_seed=SEED, positive=POSITIVE, negative=NEGATIVE, latent_image=latent, **settings,
    )  # fmt: skip
    return out["samples"]


@pytest.mark.parametrize("add_noise", ["enable", "disable"])
def test_passes_in_later_stages(passes, add_noise):
    passes(lambda model: advanced(model, picture(), add_noise=add_noise, start_at_step=2))


@pytest.mark.parametrize("latent", [empty(), picture()], ids=["empty", "picture"])
def test_passes_where_noise_is_off(passes, latent):
    passes(lambda model: advanced(model, latent, add_noise="disable"))


def test_passes_with_disable_noise(passes):
    (none,) = call("DisableNoise")
    passes(lambda model: custom_sample(none, model, POSITIVE, NEGATIVE, picture()))


def test_where_noise_is_off_the_prompt_does_not_matter(pack, comfy_base, passes_with):
    """A net for another base model stays silent as long as it has nothing to do."""
    (other,) = call("NPNetLoad", npnet_name=save_tiny_npnet(pack, comfy_base, "hunyuan-dit"))
    passes_with(other, lambda model: advanced(model, picture(), add_noise="disable"))


def test_load_npnet_says_what_a_net_was_trained_on(pack, file, monkeypatch, caplog):
    shown = []
    monkeypatch.setattr(PromptServer.instance, "send_progress_text", lambda *what: shown.append(what))
    checkpoint, reward = pack.npnet_core.checkpoint, {"scorers": {"hpsv2.1": 5.0}, "denoising_steps": 1}
    told = {"npnet.base_model": "turbo", "npnet.reward": json.dumps(reward)}
    checkpoint.save_npnet(checkpoint.load_npnet(file), file.with_name("rewarded.safetensors"), told)
    with caplog.at_level(logging.INFO), CurrentNodeContext("prompt", "7"):
        call("NPNetLoad", npnet_name="rewarded.safetensors")
        call("NPNetLoad", npnet_name=file.name)  # which says nothing
    said = "Trained on the scores of hpsv2.1 for images of turbo in 1 step."
    assert shown == [(said, "7")]
    assert said in caplog.text
