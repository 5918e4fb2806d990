"""Load Preference Model, HPS Filter, Pick Best Images and Save Noise Pair in the real ComfyUI."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from comfy.model_management import InterruptProcessingException

from tests.nodes.conditionings import conditioning
from tests.nodes.errors import NodeFailed
from tests.nodes.scorers import save_tiny_scorer
from tests.nodes.test_redenoise_node import graph
from tests.nodes.tiny_pack.models import tiny_sdxl

PROMPT = "a red fox"


def pictures(count: int, seed: int = 0, height: int = 40, width: int = 24) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def scorer(call, pack, comfy_base):
    return call("NPNetScorerLoad", scorer_name=save_tiny_scorer(pack, comfy_base), kind="auto")[0]


@pytest.fixture(scope="module")
def second_scorer(call, pack, comfy_base):
    return call("NPNetScorerLoad", scorer_name=save_tiny_scorer(pack, comfy_base, "clipscore", 1), kind="clipscore")[0]


@pytest.fixture(scope="module")
def pair(call):
    model = tiny_sdxl()
    (noise,) = call("RandomNoise", noise_seed=7)
    (sigmas,) = call("BasicScheduler", model=model, scheduler="normal", steps=10, denoise=1.0)
    return call(
        "NPNetRedenoisePair", model=model, positive=conditioning("sdxl", 1), negative=conditioning("sdxl", 2),
        noise=noise, sigmas=sigmas, latent_image={"samples": torch.zeros(3, 4, 16, 16)},
        cfg=5.5, inversion_cfg=1.0, rounds=1, inversion="exact", depth=1,
    )[2]  # fmt: skip


def hps_filter(call, scorer, source, target, margin=0.0, pair=None, prompt=PROMPT):
    return call(
        "NPNetHPSFilter", scorer=scorer, prompt=prompt, source_images=source, target_images=target, margin=margin,
        noise_pair=pair,
    )  # fmt: skip


def test_scores_are_the_cores(call, pack, scorer):
    images = pictures(3)
    expected = scorer.scorer.score(images, [PROMPT] * 3)
    _, _, _, scores = call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=images, k=1)
    assert scores == expected.tolist()
    assert len(set(scores)) == 3


def test_a_score_does_not_depend_on_the_batch(call, scorer):
    images = pictures(11)  # more than are scored at once
    together = call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=images, k=1)[3]
    alone = [
        call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=images[i : i + 1], k=1)[3][0] for i in range(11)
    ]
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_filter_keeps_what_is_better_by_more_than_the_margin(call, scorer):
    source, target = pictures(3, 1), pictures(3, 2)
    _, kept, source_scores, target_scores, preferred, report = hps_filter(call, scorer, source, target)
    assert kept == [s < t for s, t in zip(source_scores, target_scores, strict=True)]
    assert any(kept)
    assert not all(kept)
    for i, keep in enumerate(kept):
        assert torch.equal(preferred[i], (target if keep else source)[i])
    assert f"{sum(kept)} of 3 kept" in report
    margin = max(t - s for s, t in zip(source_scores, target_scores, strict=True)) + 1e-6
    assert hps_filter(call, scorer, source, target, margin)[1] == [False] * 3


def test_a_chain_of_filters_keeps_what_all_agree_on(call, scorer, second_scorer, pair):
    source, target = pictures(3, 1), pictures(3, 2)
    first, kept = hps_filter(call, scorer, source, target, pair=pair)[:2]
    both, kept_too = hps_filter(call, second_scorer, source, target, pair=first)[:2]
    assert first.kept == tuple(kept)
    assert both.kept == tuple(a and b for a, b in zip(kept, kept_too, strict=True))
    assert set(both.scores) == {"pickscore", "clipscore"}
    assert torch.equal(both.source, pair.source)  # all items stay
    assert pair.scores == {}  # the pair that came is unchanged
    assert pair.kept == (True, True, True)


def test_pick_best_is_sorted_and_brings_latents_along(call, scorer):
    images = pictures(5, 3)
    latents = {"samples": torch.randn(5, 4, 5, 3), "noise_mask": torch.rand(5, 40, 24), "batch_index": [9, 8, 7, 6, 5]}
    best, chosen, indices, scores = call(
        "NPNetPickBest", scorer=scorer, prompt=PROMPT, images=images, k=3, latents=latents
    )
    assert indices == sorted(range(5), key=lambda i: -scores[i])[:3]
    assert torch.equal(best, images[indices])
    assert torch.equal(chosen["samples"], latents["samples"][indices])
    assert torch.equal(chosen["noise_mask"], latents["noise_mask"][indices])
    assert chosen["batch_index"] == [latents["batch_index"][i] for i in indices]


def test_alpha_is_left_out(call, scorer):
    images = pictures(2)
    with_alpha = torch.cat([images, torch.rand(2, 40, 24, 1)], -1)
    assert (
        call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=with_alpha, k=1)[3]
        == call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=images, k=1)[3]
    )
    assert hps_filter(call, scorer, with_alpha, images)[2] == hps_filter(call, scorer, images, images)[2]


def test_a_short_stack_of_masks_is_repeated_as_comfyui_does(pack):
    latents = {"samples": torch.zeros(8, 4, 4, 4), "noise_mask": torch.arange(2.0)[:, None, None].expand(2, 4, 4)}
    chosen = pack.nodes.preference.select_latents(latents, torch.tensor([5, 2]))
    assert chosen["noise_mask"][:, 0, 0].tolist() == [1, 0]


def save(call, pair, **changes):
    inputs = {"prompt": PROMPT, "dataset": "pairs", "base_model": "tiny", "sampling": "euler, 10 steps", **changes}
    return call("NPNetSavePair", noise_pair=pair, **inputs)[0]


def test_save_writes_kept_and_dropped_once(call, pack, comfy_base, scorer, pair):
    scored, kept = hps_filter(call, scorer, pictures(3, 1), pictures(3, 2), pair=pair)[:2]
    assert not all(kept)
    assert save(call, scored, dataset="once").startswith("3 saved, 0 there already")
    assert save(call, scored, dataset="once").startswith("0 saved, 3 there already")
    reader = pack.npnet_core.npd.NPDReader(comfy_base / "output" / "npd" / "once")
    assert len(reader) == 3
    for i, record in enumerate(reader.records):
        assert (record.key.prompt, record.key.seed, record.key.item) == (PROMPT, 7, i)
        assert record.extra["kept"] == kept[i]
        source, target = reader[i]
        assert torch.equal(source, pair.source[i].half())
        assert torch.equal(target, pair.target[i].half())
        s, t = record.scores["pickscore"]
        assert (s < t) == kept[i]
    assert reader.manifest.base_family == "sdxl"
    assert reader.records[0].settings.recorded == {"base_model": "tiny", "sampling": "euler, 10 steps"}


def test_save_keeps_every_noise_of_a_seed(call, pack, comfy_base, pair):
    """As a variation seed makes another noise under the same one; another target of a noise is not another pair."""
    varied = dataclasses.replace(pair, source=pair.source.flip(-1), target=pair.target.flip(-1))
    assert save(call, pair, dataset="varied").startswith("3 saved, 0 there already")
    assert save(call, varied, dataset="varied").startswith("3 saved, 0 there already")
    again = dataclasses.replace(varied, target=varied.target * 1.001)
    assert save(call, again, dataset="varied").startswith("0 saved, 3 there already")
    reader = pack.npnet_core.npd.NPDReader(comfy_base / "output" / "npd" / "varied")
    stored = {source.numpy().tobytes(): target for source, target in reader}
    for source, target in ((s, t) for made in (pair, varied) for s, t in zip(made.source, made.target, strict=True)):
        assert torch.equal(stored[source.half().numpy().tobytes()], target.half())
    assert len(reader) == 6


def test_save_refuses_other_settings_and_names_them(call, pair):
    save(call, pair, dataset="settings")
    with pytest.raises(ValueError, match=r"cfg 5\.5 and 3\.0"):
        save(call, dataclasses.replace(pair, cfg=3.0), dataset="settings")


@pytest.mark.parametrize("name", ["..", "../x", "/tmp/x", "a/b", "a\\b", "", "NUL", "con.txt", "a\0b", "x" * 200])
def test_a_dataset_name_cannot_leave_its_folder(call, comfy_base, pair, name):
    before = {path for path in comfy_base.rglob("*") if "output" in path.parts}
    with pytest.raises(ValueError, match="dataset name"):
        save(call, pair, dataset=name)
    assert {path for path in comfy_base.rglob("*") if "output" in path.parts} == before


def test_stage_one_as_a_graph(run_graph, executor, pack, comfy_base):
    """Prompt and seed → pair → both images → filter → dataset, and again from the cache without writing twice."""
    api = graph()
    for key, inputs in {
        "13": ("SamplerCustomAdvanced", {**api["10"]["inputs"], "noise": ["9", 0]}),
        "14": ("VAEDecode", {"samples": ["13", 0], "vae": ["1", 2]}),
        "15": ("NPNetScorerLoad", {"scorer_name": save_tiny_scorer(pack, comfy_base), "kind": "auto"}),
        "16": (
            "NPNetHPSFilter",
            {"scorer": ["15", 0], "prompt": PROMPT, "source_images": ["14", 0], "target_images": ["11", 0],
             "margin": 0.0, "noise_pair": ["9", 2]},
        ),
        "17": (
            "NPNetSavePair",
            {"noise_pair": ["16", 0], "prompt": PROMPT, "dataset": "graph", "base_model": "tiny", "sampling": "euler"},
        ),
    }.items():  # fmt: skip
        api[key] = {"class_type": inputs[0], "inputs": inputs[1]}
    result = run_graph(api, executor=executor)
    assert "of 1 kept" in result.ui["16"]["text"][0]
    assert result.ui["17"]["text"][0].startswith("1 saved")
    again = run_graph(api, executor=executor)
    # cached: not even executed, and ComfyUI from 0.12 to 0.24 does not show it anew
    assert again.ui.get("17", result.ui["17"]) == result.ui["17"]
    assert len(pack.npnet_core.npd.NPDReader(comfy_base / "output" / "npd" / "graph")) == 1


def test_an_interrupt_while_scoring(call, scorer):
    import comfy.utils

    import nodes

    def hook(value, total, preview, **_):
        nodes.before_node_execution()  # raises what the user asked for

    comfy.utils.set_progress_bar_global_hook(hook)
    nodes.interrupt_processing()
    try:
        with pytest.raises(InterruptProcessingException):
            call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=pictures(20), k=1)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        nodes.interrupt_processing(False)


def test_an_interrupt_stops_before_the_next_batch(call, pack, scorer):
    """Also where no progress is shown, or so little that ComfyUI does not show it, for that is what used to stop."""
    import nodes

    seen = []

    def cancel(module, args, kwargs):
        seen.append(len(kwargs.get("pixel_values", args[0] if args else None)))
        nodes.interrupt_processing()

    handle = scorer.scorer.model.clip.vision_model.register_forward_pre_hook(cancel, with_kwargs=True)
    try:
        with pytest.raises(InterruptProcessingException):
            call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=pictures(20), k=1)
    finally:
        handle.remove()
        nodes.interrupt_processing(False)
    assert seen == [pack.nodes.preference.BATCH]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"source_images": pictures(2), "target_images": pictures(3)}, "2 of 24x40 and target images 3 of 24x40"),
        (
            {"source_images": pictures(1), "target_images": pictures(1, 0, 48)},
            "1 of 24x40 and target images 1 of 24x48",
        ),
        ({"source_images": pictures(1) * torch.nan, "target_images": pictures(1)}, "NaN"),
    ],
)
def test_images_that_do_not_fit(call, scorer, inputs, words):
    with pytest.raises(ValueError, match=words):
        call("NPNetHPSFilter", scorer=scorer, prompt=PROMPT, margin=0.0, **inputs)


def test_numbers_that_do_not_fit(call, scorer, pair):
    with pytest.raises(ValueError, match="2 images came for 3 noise pairs"):
        hps_filter(call, scorer, pictures(2), pictures(2, 1), pair=pair)
    with pytest.raises(ValueError, match="best 3 of 2 images"):
        call("NPNetPickBest", scorer=scorer, prompt=PROMPT, images=pictures(2), k=3)
    with pytest.raises(ValueError, match="4 latents came for 2 images"):
        call(
            "NPNetPickBest", scorer=scorer, prompt=PROMPT, images=pictures(2), k=1,
            latents={"samples": torch.zeros(4, 4, 8, 8)},
        )  # fmt: skip
    with pytest.raises(ValueError, match="No noise pair came"):
        save(call, None)


def test_a_wrong_kind_and_a_damaged_file_are_the_nodes_error(run_graph, pack, comfy_base):
    name = save_tiny_scorer(pack, comfy_base)

    def load(scorer_name, kind="auto"):
        loader = {"class_type": "NPNetScorerLoad", "inputs": {"scorer_name": scorer_name, "kind": kind}}
        image = {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 0}}
        pick = {
            "class_type": "NPNetPickBest",
            "inputs": {"scorer": ["1", 0], "prompt": "x", "images": ["2", 0], "k": 1},
        }
        return run_graph({"1": loader, "2": image, "3": pick})

    load(name)
    with pytest.raises(NodeFailed, match="is not HPSv2 but PickScore or CLIPScore by its keys") as failed:
        load(name, "hpsv2")
    assert failed.value.exception_type == "npnet_core.InputError"  # before the sentence, in the error's window
    damaged = comfy_base / "models" / "preference" / "damaged.safetensors"
    damaged.write_bytes((comfy_base / "models" / "preference" / name).read_bytes()[:5000])
    with pytest.raises(NodeFailed, match="truncated or damaged"):
        load("damaged.safetensors")
