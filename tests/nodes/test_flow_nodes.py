"""Every node of the method on tiny real flow models: 16 channels and more, films of one frame, guidance embeddings."""

from __future__ import annotations

import shutil

import pytest
import torch

from npnet_core.npd import NPDReader
from npnet_core.prompt_form import canonical
from tests.nodes.flow_prompts import HERE, flow_prompts
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.sampling import GOLDEN, custom_sample, ksample, source_noise, watched
from tests.nodes.tiny_pack.flow import tiny_flow
from tests.tiny_fit import options
from trainer.commands.fit import run
from trainer.data.embeddings import store_embeddings

FAMILIES = [name for name in HERE if name != "schnell"]
FILMS = [name for name in ("qwen-image", "krea-2", "anima") if name in HERE]
NO_SWIN = dict.fromkeys(("swin_size", "swin_dim", "swin_depths", "swin_heads", "swin_window"))
OPTIONS = {"cfg": 4.0, "inversion_cfg": 1.0, "rounds": 1, "inversion": "exact", "depth": 1}


def empty(call, batch: int = 2) -> dict:
    """What a user connects: 4 channels, which ComfyUI brings into the model's form."""
    return call("EmptyLatentImage", width=80, height=96, batch_size=batch)[0]


def noise_shape(name: str, batch: int = 2) -> tuple[int, ...]:
    return (batch, 16, 1, 12, 10) if name in FILMS else (batch, 16, 12, 10)


@pytest.fixture
def npnet(call, pack, comfy_base):
    return lambda family: call("NPNetLoad", npnet_name=save_tiny_npnet(pack, comfy_base, family, arch="unet"))[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_both_golden_nodes_start_sampling_from_the_same_golden_noise(call, pack, npnet, name):
    (positive, negative), net = flow_prompts(name), npnet(name)
    model, seen = watched(tiny_flow(name))
    (patched,) = call("NPNetModelPatch", model=model, npnet=net, **GOLDEN)
    (noise,) = call("RandomNoise", noise_seed=7)
    (noise,) = call("NPNetNoise", npnet=net, noise=noise, conditioning=positive, **GOLDEN)
    latents = custom_sample(noise, model, positive, negative, empty(call))
    golden = seen[-1]
    assert golden.shape == noise_shape(name)
    assert torch.equal(latents, ksample(patched, positive, negative, empty(call)))
    source = source_noise({"samples": torch.zeros(noise_shape(name))})
    core, frame = pack.npnet_core.golden, source.reshape(2, 16, 12, 10)
    mask = positive[0][1].get("attention_mask")
    mask = None if mask is None else mask.bool()
    expected = core.golden_noise(net.patcher.model, frame, positive[0][0], mask)
    assert torch.equal(golden.reshape(frame.shape), expected)
    assert not torch.allclose(expected, frame)


@pytest.fixture
def pair_of(call):
    def pair_of(model, name, **options):
        (noise,) = call("RandomNoise", noise_seed=7)
        (sigmas,) = call("BasicScheduler", model=model, scheduler="simple", steps=8, denoise=1.0)
        inputs = dict(zip(("positive", "negative"), flow_prompts(name), strict=True)) | OPTIONS | options
        return call(
            "NPNetRedenoisePair", model=model, noise=noise, sigmas=sigmas, latent_image=empty(call), **inputs
        )  # fmt: skip

    return pair_of


@pytest.mark.parametrize("name", FAMILIES)
def test_pairs_are_made_sampled_and_saved_as_images(call, comfy_base, pair_of, name):
    model, (positive, negative) = tiny_flow(name), flow_prompts(name)
    source, target, pair = pair_of(model, name)
    assert pair.target.shape == noise_shape(name)
    assert pair.base_family == name
    assert torch.equal(pair.source, source_noise({"samples": torch.zeros(noise_shape(name))}))
    latents = [custom_sample(noise, model, positive, negative, empty(call)) for noise in (source, target)]
    assert not torch.allclose(*latents)
    call("NPNetSavePair", noise_pair=pair, prompt="a red fox", dataset=f"flow-{name}", base_model="", sampling="")
    saved = NPDReader(comfy_base / "output" / "npd" / f"flow-{name}")
    assert (len(saved), saved.manifest.base_family) == (2, name)
    for i in range(2):
        for stored, noise in zip(saved[i], (pair.source[i], pair.target[i]), strict=True):
            assert torch.equal(stored, noise.reshape(16, 12, 10).half())


@pytest.mark.parametrize("name", FILMS)
def test_several_frames_are_refused(call, npnet, name):
    positive, negative = flow_prompts(name)
    latent = {"samples": torch.zeros(1, 16, 3, 12, 10)}
    words = "Noise of 3 frames came, one frame was expected"
    (patched,) = call("NPNetModelPatch", model=tiny_flow(name), npnet=npnet(name), **GOLDEN)
    with pytest.raises(ValueError, match=words):
        ksample(patched, positive, negative, latent)
    (noise,) = call("RandomNoise", noise_seed=7)
    (golden,) = call("NPNetNoise", npnet=npnet(name), noise=noise, conditioning=positive, **GOLDEN)
    with pytest.raises(ValueError, match=words):
        golden.generate_noise(latent)
    sigmas = torch.tensor([1.0, 0.9])
    with pytest.raises(ValueError, match=words):
        call(
            "NPNetRedenoisePair", model=tiny_flow(name), positive=positive, negative=negative, noise=noise,
            sigmas=sigmas, latent_image=latent, **OPTIONS,
        )  # fmt: skip


@pytest.mark.parametrize("name", FILMS)
def test_the_best_of_a_batch_keep_their_latents(call, pack, name):
    latents = {"samples": torch.randn(noise_shape(name, batch=3)), "batch_index": [4, 5, 6]}
    best = pack.nodes.preference.select_latents(latents, torch.tensor([2, 0]))
    assert torch.equal(best["samples"], latents["samples"][[2, 0]])
    assert best["batch_index"] == [6, 4]


@pytest.mark.parametrize("name", [name for name in ("z-image", "flux", "sd3") if name in HERE])
def test_what_the_trainer_fits_on_saved_pairs_is_loaded_and_applied(call, comfy_base, pair_of, tmp_path, name):
    model, conds = tiny_flow(name), dict(zip(("a fox", "blurry"), flow_prompts(name), strict=True))
    for text, other in (("a fox", "blurry"), ("blurry", "a fox")):
        pair = pair_of(model, name, positive=conds[text], negative=conds[other])[2]
        call("NPNetSavePair", noise_pair=pair, prompt=text, dataset=f"fit-{name}", base_model="tiny", sampling="")
    dataset = comfy_base / "output" / "npd" / f"fit-{name}"
    for text, cond in conds.items():
        mask = cond[0][1].get("attention_mask")
        embeds, mask = canonical(name, cond[0][0], None if mask is None else mask.bool())
        store_embeddings(dataset, "tiny", [text], embeds, prompt_mask=mask)
    small = {"arch": "unet", "widths": (32,), "batch": 2, "epochs": 2, "validation": 0.5}
    run(options(dataset, tmp_path / "run", **small, **NO_SWIN))
    shutil.copy(tmp_path / "run" / "npnet.safetensors", comfy_base / "models" / "npnet" / f"fitted-{name}.safetensors")
    (net,) = call("NPNetLoad", npnet_name=f"fitted-{name}.safetensors")
    assert (net.config.family, net.config.channels) == (name, 16)
    positive, negative = flow_prompts(name)
    (patched,) = call("NPNetModelPatch", model=model, npnet=net, **GOLDEN)
    latents = ksample(patched, positive, negative, empty(call))
    assert latents.isfinite().all()
    assert not torch.equal(latents, ksample(model, positive, negative, empty(call)))
