"""Baselines at equal cost: each against diffusers' pipeline or the same images made another way, and what they cost."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch

from npnet_core.errors import InputError
from tests import tiny_pipelines
from tests.sentences import is_one_sentence
from tests.trainer.collecting.test_collect import Palette
from trainer import bases
from trainer.bases import Schedule, load_base
from trainer.data.images import read_image
from trainer.data.prompts import PromptRow
from trainer.evaluation.baselines import Baseline, read_baseline
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.methods import check_methods, choose_methods
from trainer.evaluation.sampling_settings import Setting

SIZE = 64
PROMPTS = [PromptRow("a red circle"), PromptRow("a blue square"), PromptRow("a green circle")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_pipelines.tiny_sd(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def base(folder):
    return load_base(folder)


def setting(cfg: float, steps: int = 4, sampler: str = "ddim") -> Setting:
    return Setting(Schedule(sampler, steps), cfg, SIZE, SIZE)


def made(base, out: Path, where: Setting, *methods: str, scorers=()) -> dict[str, list[torch.Tensor]]:
    """method → its images, in the order of the prompts."""
    scorers = scorers or [Palette()]
    rows = evaluate(base, {}, scorers, PROMPTS, settings=[where], out=out, methods=methods).rows
    images = {}
    for row in rows:
        if row["metric"] == scorers[0].kind:
            images.setdefault(row["method"], []).append(read_image(out / row["image"]))
    return images


def equal(ours, theirs) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("guided", [1, 3])
def test_guidance_on_the_first_steps_is_a_pipeline_that_stops_guiding(tmp_path, folder, base, guided):
    """diffusers' way: a callback that drops the unconditional branch after so many steps."""
    ours = made(base, tmp_path, setting(1.0), f"cfg-5.5-first-{guided}")[f"cfg-5.5-first-{guided}"]
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)

    def stop_guiding(pipe, step, _timestep, tensors):
        if step == guided - 1:
            pipe._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
        return tensors

    for i, row in enumerate(PROMPTS):
        (seed,) = {draw.seed for draw in draws_of(row)}
        noise = bases.initial_noise(base, [seed], SIZE, SIZE)
        image = pipe(
            row.prompt,
            latents=noise,
            num_inference_steps=4,
            guidance_scale=5.5,
            height=SIZE,
            width=SIZE,
            output_type="pt",
            callback_on_step_end=stop_guiding,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        ).images
        assert (ours[i] - image[0].permute(1, 2, 0)).abs().max() < 1.1 / 255


def draws_of(row: PromptRow):
    from trainer.evaluation.draws import draw
    from trainer.evaluation.evaluate import SEEDS

    return [each for each in draw(PROMPTS, SEEDS, 1) if each.prompt == row.prompt]


def test_other_guidance_and_other_steps_are_those_of_such_a_setting(tmp_path, base):
    """Another name for what a setting with these numbers makes, to the bit."""
    ours = made(
        base,
        tmp_path / "a",
        setting(3.0),
        *("cfg-5.5", "cfg-2w-1", "steps-7", "cfg-5.5-steps-2", "cfg-5-first-2", "cfg-2w-1-first-2"),
    )
    same = {"cfg-5.5": (5.5,), "cfg-2w-1": (5.0,), "steps-7": (3.0, 7), "cfg-5.5-steps-2": (5.5, 2)}
    for name, where in {name: setting(*each) for name, each in same.items()}.items():
        theirs = made(base, tmp_path / name, where, "steps-9")["standard"]
        assert equal(ours[name], theirs), name
        assert not equal(ours[name], ours["standard"]), name
    assert equal(ours["cfg-2w-1-first-2"], ours["cfg-5-first-2"])
    assert not equal(ours["cfg-2w-1-first-2"], ours["cfg-2w-1"])


def test_the_best_of_n_is_the_candidate_that_its_judge_scores_highest(tmp_path, base):
    """Candidates sampled one by one here; a second judge tells that it is not he who chose."""
    chooser, other = Palette("chooser"), Palette("other")
    images = made(base, tmp_path, setting(1.0), "best-of-3-chooser", scorers=[chooser, other])
    differing = 0
    for i, row in enumerate(PROMPTS):
        (draw,) = draws_of(row)
        seeds = Baseline(candidates=3, judge="chooser").seeds(draw.prompt, draw.seed)
        assert seeds[0] == draw.seed
        assert len(set(seeds)) == 3
        candidates = []
        for seed in seeds:
            noise, prompts = bases.initial_noise(base, [seed], SIZE, SIZE), bases.encode(base, [row.prompt])
            candidates.append(bases.decode(base, bases.sample(base, noise, prompts, setting(1.0).schedule, 1.0))[0])
        scores = chooser.score(torch.stack(candidates), [row.prompt] * 3)
        best = candidates[scores.argmax()]
        assert (images["best-of-3-chooser"][i] - best).abs().max() < 1.1 / 255
        differing += int(scores.argmax() != 0)
    assert differing > 0  # or the choice was not tried


@pytest.mark.parametrize(
    ("cfg", "sampler", "name", "predictions"),
    [
        (1.0, "ddim", "standard", 4),
        (1.0, "ddim", "cfg-5.5", 8),
        (1.0, "ddim", "cfg-5.5-first-1", 5),
        (1.0, "ddim", "cfg-5.5-first-3", 7),
        (1.0, "ddim", "steps-11", 11),
        (1.0, "ddim", "cfg-5.5-steps-3", 6),
        (5.5, "ddim", "cfg-2w-1", 8),
        (1.5, "ddim", "cfg-2w-1-first-2", 8),
        (5.5, "ddim", "inversion", 8 + 2 + 1),
        (1.0, "ddim", "best-of-3-palette", 12),
        (1.0, "heun", "standard", 7),
        (1.0, "heun", "cfg-5.5-first-2", 7 + 4),  # its two first steps predict twice
    ],
)
def test_predictions_of_an_image(tmp_path, base, cfg, sampler, name, predictions):
    """Rows of the network per image, counted while they are evaluated."""
    methods = ["steps-5", name] if name == "standard" else [name]
    about = evaluate(
        base, {}, [Palette()], PROMPTS, settings=[setting(cfg, sampler=sampler)], out=tmp_path, methods=methods, batch=2
    ).about
    assert {row["method"]: row["predictions"] for row in about["cost"]}[name] == predictions


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cfg-0", "makes no images"),
        ("cfg-3-first-0", "makes no images"),
        ("steps-0", "makes no images"),
        ("cfg-3-steps-0", "makes no images"),
        ("best-of-1-palette", "makes no images"),
        ("best-of-2-taste", "chooses by taste, which scores nothing here"),
        ("cfg-3-first-4", "Guidance on the first 4 of 4 steps came"),
        ("cfg-x", "There is no method cfg-x"),
    ],
)
def test_wrong_baselines(tmp_path, base, name, message):
    with pytest.raises(InputError, match=message) as error:
        evaluate(base, {}, [Palette()], PROMPTS, settings=[setting(1.0)], out=tmp_path, methods=[name])
    assert is_one_sentence(str(error.value))
    assert not (tmp_path / "images").exists()


def test_a_spacing_for_ten_steps_has_no_more(tmp_path):
    base = load_base(tiny_pipelines.tiny_sd(tmp_path / "sd1", 768))
    ten = Setting(Schedule("euler", 10, "ays"), 1.0, SIZE, SIZE)
    with pytest.raises(InputError, match="exists for 10 steps"):
        check_methods(choose_methods(["steps-20"], {}), base, [ten], None)


def test_a_net_may_not_be_named_like_a_baseline(base):
    with pytest.raises(InputError, match="A net is named cfg-5 as a method is"):
        choose_methods(["npnet"], {"cfg-5": None})


def test_names_that_are_none():
    assert [read_baseline(name) for name in ("npnet", "standard", "my-cfg-5", "cfg", "steps-", "best-of-2")] == [
        None
    ] * 6
