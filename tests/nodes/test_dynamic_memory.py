"""Nets and scorers with ComfyUI's dynamic memory on: loaded, run, freed and loaded again, they compute the same.

Its flag alone needs no GPU: layers are then made without weights. What moves weights to the GPU while they are used
does not run here, for on the CPU ComfyUI hands out its plain patcher; ``make gpu`` runs that.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from tests import tiny_scorers
from tests.comfyui import COMFYUI, COMFYUI_ARGS, make_base
from tests.nodes.conditionings import conditioning
from tests.nodes.graphs import call
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.sampling import GOLDEN, SEED, custom_sample, empty
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.server import serve
from tests.nodes.small_graphs import pipeline_graph, small_graphs
from tests.nodes.tiny_pack.models import tiny_sdxl, tiny_vae
from tests.nodes.tiny_pack.text import tiny_sdxl_clip
from trainer.shapes import BASE

memory_management = pytest.importorskip("comfy.memory_management", reason="ComfyUI has no dynamic memory before 0.12")

PROMPT = "a red circle"


@pytest.fixture
def dynamic(monkeypatch):
    """Switch dynamic memory on, as main.py does on an NVIDIA card."""

    def switch_on():
        monkeypatch.setattr(memory_management, "aimdo_enabled", True)
        monkeypatch.setattr(comfy.model_management, "WINDOWS", True)  # once (0.18) layers had weights elsewhere
        monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
        assert comfy.ops.manual_cast.Linear(2, 3).weight is None  # or the tests below show nothing

    return switch_on


@pytest.mark.parametrize("arch", ["npnet", "unet"])
def test_a_net_computes_the_same(pack, comfy_base, dynamic, arch):
    name = save_tiny_npnet(pack, comfy_base, arch=arch)

    def latents() -> tuple[object, torch.Tensor]:
        (npnet,) = call("NPNetLoad", npnet_name=name)
        (source,) = call("RandomNoise", noise_seed=SEED)
        positive, negative = conditioning("sdxl", 1), conditioning("sdxl", 2)
        (noise,) = call("NPNetNoise", npnet=npnet, noise=source, conditioning=positive, **GOLDEN)
        return npnet, custom_sample(noise, tiny_sdxl(), positive, negative, empty(2))

    _, before = latents()
    dynamic()
    npnet, after = latents()
    assert torch.equal(after, before)
    assert npnet.patcher in comfy.model_management.loaded_models()
    comfy.model_management.unload_all_models()
    assert npnet.patcher not in comfy.model_management.loaded_models()
    assert torch.equal(latents()[1], before)


@pytest.mark.parametrize("arch", ["npnet", "unet"])
@pytest.mark.parametrize("switched_on", [False, True])
def test_a_net_that_is_loaded_draws_no_weights_and_holds_each_number_once(pack, comfy_base, dynamic, switched_on, arch):
    path = comfy_base / "models" / "npnet" / save_tiny_npnet(pack, comfy_base, arch=arch)
    core = pack.npnet_core
    if switched_on:
        dynamic()
    before = torch.get_rng_state()
    npnet = core.checkpoint.load_npnet(path, operations=comfy.ops.manual_cast)
    assert torch.equal(torch.get_rng_state(), before)
    plain = core.checkpoint.load_npnet(path)
    assert npnet.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, npnet.state_dict()[key]) for key, value in plain.state_dict().items())
    assert all(isinstance(value, torch.nn.Parameter) and not value.requires_grad for value in npnet.parameters())


def published(folder: Path) -> dict[str, tuple[Path, dict]]:
    """Weights of every kind, as they are published, by the kind: file or folder, and options of load_scorer."""
    for name in ("clip", "aesthetic", "imagereward", "hpsv2", "hpsv2.1", "mps"):
        (folder / name).mkdir()
    clip = tiny_scorers.write_clip(folder / "clip")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(clip / name, folder / "mps" / name)
    return {
        "hpsv2": (tiny_scorers.write_hps(folder / "hpsv2"), HPS),
        "hpsv2.1": (tiny_scorers.write_hps(folder / "hpsv2.1", "HPS_v2.1_compressed.pt"), HPS),
        "pickscore": (clip, {}),
        "clipscore": (clip, {}),
        "aesthetic": (tiny_scorers.write_aesthetic(folder / "aesthetic"), {"config": tiny_scorers.CLIP_CONFIG}),
        "imagereward": (tiny_scorers.write_image_reward(folder / "imagereward"), {"config": tiny_scorers.BLIP_CONFIG}),
        "mps": (tiny_scorers.write_mps(folder / "mps"), {"config": tiny_scorers.CLIP_CONFIG}),
    }


HPS = {"config": tiny_scorers.HPS_CONFIG, "tokenizer": tiny_scorers.CLIP_WORDS}


def test_a_scorer_of_every_kind_computes_the_same(pack, tmp_path, dynamic):
    files, images = published(tmp_path), tiny_scorers.images(2, 40, 24)
    assert files.keys() == pack.npnet_core.preference.KINDS.keys()
    device, cpu = comfy.model_management.get_torch_device(), torch.device("cpu")

    def scores() -> dict[str, torch.Tensor]:
        given = {}
        for kind, (path, options) in files.items():
            scorer = pack.npnet_core.preference.load_scorer(kind, path, **options)
            loaded = pack.nodes.preference.LoadedScorer(scorer, ModelPatcher(scorer.model, device, cpu))
            given[kind] = loaded.score(images, PROMPT)
            comfy.model_management.unload_all_models()
            assert torch.equal(loaded.score(images, PROMPT), given[kind]), kind
        return given

    before = scores()
    dynamic()
    state = torch.get_rng_state()
    after = scores()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(after[kind], before[kind]) for kind in files)


def test_the_scorers_node(pack, comfy_base, dynamic):
    dynamic()
    (scorer,) = call("NPNetScorerLoad", scorer_name=save_tiny_scorer(pack, comfy_base), kind="auto")
    images = tiny_scorers.images(2, 40, 24)
    _, _, _, scores = call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=images, k=1)
    assert scores == scorer.scorer.score(images, [PROMPT] * 2).tolist()


def test_who_gives_way_to_whom(pack, comfy_base, monkeypatch):
    """Nets are in the patcher that main.py chose, also after our pack was imported; scorers are in the plain one."""

    class Chosen(ModelPatcher):
        pass

    assert comfy.model_patcher.CoreModelPatcher is ModelPatcher
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Chosen)
    (npnet,) = call("NPNetLoad", npnet_name=save_tiny_npnet(pack, comfy_base))
    (scorer,) = call("NPNetScorerLoad", scorer_name=save_tiny_scorer(pack, comfy_base), kind="auto")
    assert type(npnet.patcher) is Chosen
    assert type(scorer.patcher) is ModelPatcher


def test_a_server_runs_every_node(pack, pytestconfig):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DYNAMIC_MEMORY": "1"}
    with serve(COMFYUI, make_base(pytestconfig), COMFYUI_ARGS, environment) as server:
        scorer = save_tiny_scorer(pack, server.base)
        for arch in ("npnet", "unet"):
            for graph in small_graphs(save_tiny_npnet(pack, server.base, arch=arch), scorer).values():
                assert server.run(graph)["status"]["completed"]
        shutil.copytree(BASE, server.base / "models" / "diffusers" / "shapes")
        assert server.run(pipeline_graph("shapes"))["status"]["completed"]


def test_the_tiny_pack_has_weights(dynamic):
    def parts():
        return tiny_sdxl().model.diffusion_model, tiny_sdxl_clip().cond_stage_model, tiny_vae().first_stage_model

    before = [part.state_dict() for part in parts()]
    dynamic()
    for part, expected in zip(parts(), before, strict=True):
        torch.testing.assert_close(part.state_dict(), expected, rtol=0, atol=0)
