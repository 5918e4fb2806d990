"""npnet evaluate on tiny real pipelines: what is made and scored, what it costs, and that nothing is made twice."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import time
import weakref
import zlib
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.config import NPNetConfig
from npnet_core.errors import InputError
from npnet_core.golden import golden_noise
from npnet_core.model import NPNet
from npnet_core.preference import load_scorer
from tests import tiny_pipelines
from tests.tiny_scorers import write_clip
from tests.trainer.collecting.test_collect import Palette, counted, forks, own_lock
from trainer import bases
from trainer.bases import Schedule, load_base
from trainer.collecting import scorers
from trainer.collecting.keys import draw_seeds, pair_keys
from trainer.collecting.pairs import make_pairs
from trainer.collecting.recipe import Recipe
from trainer.commands.cli import main
from trainer.commands.nets import name_npnets
from trainer.data.images import read_image, read_images, read_metadata, write_image
from trainer.data.jsonl import append_jsonl, read_shards, truncate_partial_line
from trainer.data.prompts import PromptRow
from trainer.evaluation.cost import cost_per_image
from trainer.evaluation.draws import draw
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.folder import ends_hash, facts
from trainer.evaluation.methods import REDENOISING, Redenoising, check_methods, choose_methods
from trainer.evaluation.sampling_settings import Setting, every_setting, read_size

SIZE = 64
PROMPTS = [
    PromptRow(f"a {colour} {shape}", shape) for colour in ("red", "blue", "green") for shape in ("circle", "square")
]
SETTING = Setting(Schedule("ddim", 2), 5.5, SIZE, SIZE)
STOCHASTIC = Setting(Schedule("euler-ancestral", 3), 2.0, SIZE, 96)
EVERY = ("standard", "inversion", "repaint", "npnet", "wrong-prompt")


def tiny_npnet(seed: int) -> NPNet:
    """A net for the tiny SD that changes noise and listens to its prompt."""
    torch.manual_seed(seed)
    small = {"swin_size": 16, "swin_dim": 8, "swin_depths": (1, 1), "swin_heads": (1, 2), "swin_window": 2}
    npnet = NPNet(NPNetConfig(family="sd", resolution=8, prompt_dim=32, misread_swin=False, **small))
    with torch.no_grad():
        npnet.alpha.fill_(0.5)
        npnet.beta.fill_(0.1)
    return npnet.eval()


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """sd, sdxl: base models; clip, pick: preference models; a, b, npnet: nets; prompts.csv."""
    root = tmp_path_factory.mktemp("models")
    tiny_pipelines.tiny_sd(root / "sd")
    tiny_pipelines.tiny_sdxl(root / "sdxl")
    write_clip(root / "clip", salt=1)
    write_clip(root / "pick", salt=2)
    for seed, name in enumerate(("a", "b", "npnet")):  # the last as npnet fit names it
        save_npnet(tiny_npnet(seed), root / f"{name}.safetensors")
    lines = [f'"{row.prompt}, one",{row.category}' for row in PROMPTS]
    (root / "prompts.csv").write_text("\n".join(["Prompts,Category", *lines]))
    return root


@pytest.fixture(scope="session")
def base(models):
    return load_base(models / "sd")


@pytest.fixture(scope="session")
def npnets(models):
    return {name: load_npnet(models / f"{name}.safetensors") for name in "ab"}


def command(models, out, *more) -> list[str]:
    argv = ["evaluate", "--base", models / "sd", "--npnet", models / "npnet.safetensors", "--out", out]
    argv += ["--prompts", models / "prompts.csv", "--scorer", f"clipscore={models / 'clip'}"]
    argv += ["--steps", 2, "--size", f"{SIZE}x{SIZE}", "--device", "cpu", *more]
    return list(map(str, argv))


def contents(folder: Path, *patterns: str) -> dict[str, bytes]:
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def scored(folder: Path) -> dict[tuple[str, str], float]:
    rows = read_shards(folder, "scores")
    found = {(row["image"], row["metric"]): row["score"] for row in rows}
    assert len(found) == len(rows)  # nothing twice
    return found


# -- what is made -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [SETTING, STOCHASTIC], ids=lambda setting: setting.name)
def test_images_are_the_pipelines_own_from_the_methods_noise(tmp_path, models, base, npnets, setting):
    """Every image of every method, from what diffusers makes of the same start one by one."""
    prompts, palette = PROMPTS[:3], Palette()
    evaluation = evaluate(
        base, npnets, [palette], prompts, settings=[setting], out=tmp_path, methods=EVERY, seeds_per_prompt=2
    )
    assert evaluation.unscored == 0
    pipe = diffusers.DiffusionPipeline.from_pretrained(models / "sd", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    name, config = bases.SAMPLERS[setting.schedule.sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **config)
    methods = {method.name: method for method in choose_methods(EVERY, npnets)}
    half = len(prompts) // 2
    others = {row.prompt: prompts[(i + half) % len(prompts)].prompt for i, row in enumerate(prompts)}
    assert list(methods) == list(evaluation.about["methods"])
    assert len(evaluation.rows) == len(methods) * len(prompts) * 2
    for row in evaluation.rows:
        method = methods[row["method"]]
        told = others[row["prompt"]] if method.wrong_prompt else row["prompt"]
        noise = bases.initial_noise(base, [row["seed"]], setting.height, setting.width)
        start = method.start(base, bases.encode(base, [told]), noise, setting)
        generator = torch.Generator().manual_seed(row["seed"])
        torch.randn(noise.shape, generator=generator)
        image = pipe(
            row["prompt"],
            latents=start,
            generator=generator,
            num_inference_steps=setting.schedule.steps,
            guidance_scale=setting.cfg,
            height=setting.height,
            width=setting.width,
            output_type="pt",
        ).images
        image = torch.as_tensor(image)[0].permute(1, 2, 0)
        assert (read_image(tmp_path / row["image"]) - image).abs().max() < 1.1 / 255
        assert row["score"] == pytest.approx(palette.score(image[None], [row["prompt"]]).item(), abs=0.02)


def test_inversion_is_what_collecting_makes(base):
    """The same prompts and seeds as pairs of a dataset."""
    keys = pair_keys([row.prompt for row in PROMPTS[:2]], range(1025), 2, (4, 8, 8))
    encoded = bases.encode(base, [key.prompt for key in keys])
    pairs = make_pairs(base, [], Recipe(SETTING.schedule, rounds=2, height=SIZE, width=SIZE), keys, encoded)
    method = choose_methods(["inversion"], {}, Redenoising(rounds=2))[1]
    assert torch.equal(method.start(base, encoded, pairs.source, SETTING), pairs.target)


def test_a_recipe_re_denoises_on_its_own_schedule(base):
    """However the images are sampled; and a folder of its images takes none of a recipe of other steps."""
    recipe, other = (Recipe(Schedule("ddim", steps), height=SIZE, width=SIZE) for steps in (4, 5))
    noise, encoded = bases.initial_noise(base, [3], SIZE, SIZE), bases.encode(base, ["a red circle"])
    method = choose_methods(["inversion"], {}, recipe)[1]
    starts = [method.start(base, encoded, noise, setting) for setting in (SETTING, STOCHASTIC)]
    expected = recipe.redenoised(base, encoded, noise, recipe.schedule).target
    assert all(torch.equal(start, expected) for start in starts)
    assert not torch.equal(expected, other.redenoised(base, encoded, noise, other.schedule).target)
    made_with = [facts(base, [], [method], each, 1)["inversion"] for each in (recipe, other)]
    assert made_with[0].endswith("1 round, exact inversion, on 4 ddim steps")
    assert made_with[0] != made_with[1]


@pytest.mark.parametrize("rounds", [1, 3])
def test_repaint_is_a_ddim_step_and_the_forward_process_back(base, rounds):
    """x₀ = √(ᾱ₀/ᾱ₁) x₁ + √(1 − ᾱ₀/ᾱ₁) ε, with diffusers' step; ε is found by asking for it one by one."""
    setting = Setting(Schedule("ddim", 4), 3.0, SIZE, SIZE)
    noise = bases.initial_noise(base, [3, 4], SIZE, SIZE)
    encoded = bases.encode(base, ["a red circle", "a blue square"])
    method = choose_methods(["repaint"], {}, repaint_rounds=rounds)[1]
    start = method.start(base, encoded, noise, setting)
    scheduler = tiny_pipelines.ddim_scheduler()
    scheduler.set_timesteps(4)
    first, second = scheduler.timesteps[:2]
    ratio = (scheduler.alphas_cumprod[first] / scheduler.alphas_cumprod[second]).item()
    x = noise[:1]
    generator = torch.Generator().manual_seed(zlib.crc32(x.numpy().tobytes()))
    for _ in range(rounds):
        eps = bases.predict(base, x, first.item(), encoded[[0]], 3.0)
        lower = scheduler.step(eps, first, x).prev_sample
        fresh = torch.randn(1, 4, 8, 8, generator=generator)
        x = math.sqrt(ratio) * lower + math.sqrt(1 - ratio) * fresh
    torch.testing.assert_close(start[:1], x, atol=2e-5, rtol=0)


def test_a_net_s_start_is_its_golden_noise_for_that_prompt(base, npnets):
    encoded, noise = bases.encode(base, ["a red circle"]), bases.initial_noise(base, [5], SIZE, 96)
    methods = {method.name: method for method in choose_methods(["npnet", "wrong-prompt"], npnets)}
    assert list(methods) == ["standard", "a", "b", "wrong-prompt-a", "wrong-prompt-b"]
    golden = golden_noise(npnets["b"], noise, encoded.prompt_embeds)
    for name in ("b", "wrong-prompt-b"):
        assert torch.equal(methods[name].start(base, encoded, noise, SETTING), golden)
    assert not torch.equal(methods["a"].start(base, encoded, noise, SETTING), golden)
    assert torch.equal(methods["standard"].start(base, encoded, noise, SETTING), noise)


def test_what_made_an_image_is_in_it(tmp_path, base, npnets):
    rows = evaluate(
        base, npnets, [Palette()], PROMPTS[:2], settings=[STOCHASTIC], out=tmp_path, methods=("npnet", "wrong-prompt")
    ).rows
    for row in rows:
        about = read_metadata(tmp_path / row["image"])
        assert (about["prompt"], about["seed"], about["method"]) == (row["prompt"], row["seed"], row["method"])
        assert about["seed"] == draw_seeds(row["prompt"], range(1025, 65536), 1)[0]
        assert {key: about[key] for key in STOCHASTIC.to_dict()} == STOCHASTIC.to_dict()
        wrong = row["method"].startswith("wrong-prompt")
        assert about.get("noise_prompt") == (
            next(p.prompt for p in PROMPTS if p.prompt != row["prompt"]) if wrong else None
        )
        with Image.open(tmp_path / row["image"]) as picture:
            assert (picture.size, picture.mode) == ((96, 64), "RGB")


def test_a_control_s_image_depends_on_its_other_prompt(tmp_path, base, npnets):
    """Which other prompt that is changes for the last prompt when the set grows: a new image, and the old one stays."""
    for count in (2, 3):
        rows = evaluate(
            base, npnets, [], PROMPTS[:count], settings=[SETTING], out=tmp_path, methods=("npnet", "wrong-prompt")
        )
    names = [path.name for path in (tmp_path / "images" / SETTING.name / "wrong-prompt-a").iterdir()]
    assert len(names) == 4
    assert rows.rows == []
    told = [read_metadata(tmp_path / "images" / SETTING.name / "wrong-prompt-a" / name) for name in names]
    pairs = {(about["prompt"], about["noise_prompt"]) for about in told}
    a, b, c = (row.prompt for row in PROMPTS[:3])
    assert pairs == {(a, b), (b, a), (b, c), (c, a)}


# -- which images -----------------------------------------------------------------------------------------------------


def test_draws_pair_every_prompt_with_the_next_and_grow_at_the_end():
    some, more = draw(PROMPTS, range(1000), 2), draw(PROMPTS, range(1000), 3)
    assert more[: len(some)] == some
    assert len(set(more)) == 3 * len(PROMPTS)
    for each in more:
        assert each.seed in draw_seeds(each.prompt, range(1000), 3)
        assert each.other != each.prompt
    assert {each.other for each in more} == {each.prompt for each in more}
    with pytest.raises(InputError, match="came twice"):
        draw([*PROMPTS, PROMPTS[0]], range(9), 1)


def test_settings_are_all_combinations_with_names_of_their_own(base):
    settings = every_setting(
        base,
        samplers=["ddim", "euler"],
        steps=[2, 3],
        spacings=["own", "trailing"],
        cfgs=[1.0, 1.5],
        sizes=["64x96", "96X64", "64x96"],
    )
    assert len(settings) == len({setting.name for setting in settings}) == 2 * 2 * 2 * 2 * 2
    assert Setting(Schedule("euler", 3, "trailing"), 1.5, height=96, width=64) in settings
    assert all(re.fullmatch(r"[\w.-]+", setting.name) for setting in settings)
    assert SETTING.name == "ddim-2-cfg5.5-64x64"
    (own,) = every_setting(base, samplers=["ddim"], steps=[2], spacings=["own"], cfgs=[1.0])
    assert (own.height, own.width) == (128, 128)
    assert read_size("1216x832") == (832, 1216)


# -- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cfg", "methods", "rows"),
    [
        (5.5, ["inversion"], 4 + (4 + 3)),  # one prediction of both branches is two rows; inversion 2 + 1 more
        (1.0, ["inversion"], 2 + (2 + 3)),  # guidance 5.5 down and 1 back whatever the images have
        (5.5, ["npnet"], 4 + 2 * 4),
        (5.5, ["npnet", "wrong-prompt"], 4 + 4 * 4),
        (5.5, ["repaint"], 4 + (4 + 2)),
        (1.0, ["repaint"], 2 + (2 + 1)),
    ],
)
def test_model_evaluations(tmp_path, base, npnets, cfg, methods, rows):
    setting = Setting(Schedule("ddim", 2), cfg, SIZE, SIZE)
    nets = npnets if "npnet" in methods else {}
    with counted(base.network) as evaluated:
        evaluate(base, nets, [], PROMPTS, settings=[setting], out=tmp_path, methods=methods, batch=4)
    assert sum(evaluated) == len(PROMPTS) * rows
    assert max(evaluated) == 4 * (2 if cfg > 1 or "inversion" in methods else 1)


def test_images_of_a_batch_share_calls(tmp_path, base):
    palette = Palette()
    with counted(base.pipe.vae.decoder) as decoded, counted(base.pipe.text_encoder) as encoded:
        evaluate(
            base, {}, [palette], PROMPTS, settings=[SETTING, STOCHASTIC], out=tmp_path, methods=["inversion"], batch=4
        )
    assert decoded == [4] * 4 + [2] * 4
    assert palette.calls == decoded
    assert sum(encoded) == len(PROMPTS) + 1  # each once, and the empty one


def test_cost_is_the_median_of_warm_full_batches():
    def batch(images, seconds, warm_up=False, peak=None, method="a"):
        stages = {"noise_seconds": 0.0, "sample_seconds": seconds, "decode_seconds": 1.0}
        row = {"setting": "s", "method": method, "images": images, "warm_up": warm_up, "peak_bytes": peak}
        return row | stages | {"device": "d"}

    measured = [batch(4, 99, True, 900), batch(4, 7, peak=500), batch(4, 3, peak=600), batch(4, 5, peak=550)]
    rows = cost_per_image([*measured, batch(1, 50), batch(2, 3, True, method="b")])
    assert [(row["method"], row["batch"], row["batches"], row["peak_bytes"]) for row in rows] == [
        ("a", 4, 3, 600),
        ("b", 2, 1, None),
    ]
    assert rows[0]["seconds"] == pytest.approx((5 + 1) / 4)
    assert rows[0]["sample_seconds"] == pytest.approx(5 / 4)
    assert rows[1]["seconds"] == pytest.approx(2)


def test_cost_is_measured_in_the_run(tmp_path, base, npnets):
    start = time.perf_counter()
    about = evaluate(base, npnets, [], PROMPTS, settings=[SETTING], out=tmp_path, methods=["npnet"], batch=2).about
    wall = time.perf_counter() - start
    assert [(row["setting"], row["method"]) for row in about["cost"]] == [
        (SETTING.name, m) for m in ("standard", "a", "b")
    ]
    lines = read_shards(tmp_path, "cost")
    assert [line["warm_up"] for line in lines] == [True] * 3 + [False] * 6
    assert sum(line["images"] for line in lines) == 3 * len(PROMPTS)
    stages = ("noise_seconds", "sample_seconds", "decode_seconds")
    assert 0 < sum(line[stage] for line in lines for stage in stages) < wall
    assert all(row["noise_seconds"] > 10 * about["cost"][0]["noise_seconds"] for row in about["cost"][1:])


# -- stopping and going on --------------------------------------------------------------------------------------------


def test_a_finished_run_is_left_alone(tmp_path, models, monkeypatch):
    assert main(command(models, tmp_path)) == 0
    before = contents(tmp_path, "**/*.png", "*.jsonl", "results.json", "report.md")
    assert {"scores.jsonl", "results.json", "report.md"} < set(before)
    loaded = []
    monkeypatch.setattr(scorers, "load_scorer", lambda *args, **kw: loaded.append(args))
    saved = sorted(path for path in tmp_path.iterdir() if path.suffix == ".toml")
    assert main(["evaluate", "--config", str(saved[0])]) == 0
    assert contents(tmp_path, "**/*.png", "*.jsonl", "results.json", "report.md") == before
    assert loaded == []


def test_what_is_missing_is_made_again_to_the_bit(tmp_path, base, npnets):
    def go(folder):
        return evaluate(
            base, npnets, [Palette()], PROMPTS, settings=[SETTING, STOCHASTIC], out=folder, methods=EVERY, batch=4
        )

    whole = go(tmp_path / "a")
    expected = contents(tmp_path / "a", "**/*.png")
    assert len(expected) == len(PROMPTS) * 8 * 2
    images = sorted((tmp_path / "a").glob("**/*.png"))
    generator = random.Random(0)
    lines = (tmp_path / "a" / "scores.jsonl").read_text().splitlines(keepends=True)
    for path in generator.sample(images, 9):
        path.unlink()
    untouched = {path: path.stat().st_mtime_ns for path in images if path.exists()}
    kept = [line for line in lines if generator.random() < 0.7]
    (tmp_path / "a" / "scores.jsonl").write_text("".join(kept)[:-9])  # as a kill may leave it
    again = go(tmp_path / "a")
    assert contents(tmp_path / "a", "**/*.png") == expected
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    assert again.rows == whole.rows
    assert scored(tmp_path / "a") == {(row["image"], row["metric"]): row["score"] for row in whole.rows}


def test_more_prompts_seeds_methods_settings_and_metrics_may_come_later(tmp_path, base, npnets):
    one, two = Palette("one"), Palette("two")
    options = {"out": tmp_path, "batch": 3}
    evaluate(base, {}, [one], PROMPTS[:3], settings=[SETTING], methods=["inversion"], **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.png")}
    with counted(base.network) as rows:
        grown = evaluate(
            base,
            npnets,
            [one, two],
            PROMPTS,
            settings=[SETTING, STOCHASTIC],
            methods=["inversion", "npnet"],
            seeds_per_prompt=2,
            **options,
        )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(grown.rows) == 12 * 4 * 2 * 2
    assert sum(one.calls) == 12 * 4 * 2 == sum(two.calls)
    inversion, sampled = 12 * 2 * 3 - 3 * 3, 12 * (4 * 4 + 4 * 6) - 3 * (4 + 4)
    assert sum(rows) == inversion + sampled


def test_workers_make_together_what_one_makes(tmp_path, models):
    assert main(command(models, tmp_path / "one")) == 0
    for i in range(2):
        assert not (tmp_path / "two" / "report.html").exists()
        assert main(command(models, tmp_path / "two", "--worker", f"{i}/2")) == 0
    assert (tmp_path / "two" / "report.html").exists()
    one, two = scored(tmp_path / "one"), scored(tmp_path / "two")
    assert two == pytest.approx(one, abs=1e-3)  # batches differ, and with them the last bits
    shares = [{row["prompt"] for row in read_shards(tmp_path / "two", f"scores-{i}of2")} for i in range(2)]
    assert len(shares[0]) == len(shares[1]) == 3
    assert not shares[0] & shares[1]
    results = [json.loads((tmp_path / folder / "results.json").read_text()) for folder in ("one", "two")]
    for ours, theirs in zip(*(result["methods"] for result in results), strict=True):
        assert (ours["method"], ours["n"]) == (theirs["method"], theirs["n"])
        assert ours["mean"] == pytest.approx(theirs["mean"], abs=1e-3)
    assert results[0]["about"]["diagnostics"] == results[1]["about"]["diagnostics"]
    assert main(command(models, tmp_path / "two")) == 0  # one that comes later makes nothing
    assert not (tmp_path / "two" / "scores.jsonl").exists()


def start(argv: list[str], log: Path | None = None, largest_file: int | None = None):
    """``npnet`` in a process of its own that has imported everything already."""

    def child() -> None:
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background
        own_lock(tqdm)
        os.environ["TQDM_MININTERVAL"] = "0"
        if log is not None:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # not pytest's
        os._exit(main(argv))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


@forks
def test_kills_change_nothing(tmp_path, models):
    def argv(folder):
        return command(models, folder, "--batch", "2", "--seeds-per-prompt", "2", "--cfg", "1", "3")

    whole = start(argv(tmp_path / "whole"))
    whole.join(300)
    assert whole.exitcode == 0
    for place, count in (
        ("images/**/*.png", 11),
        ("images/**/*.png", 66),
        ("scores.jsonl", 1),
    ):
        process = start(argv(tmp_path / "cut"))
        while process.is_alive() and len(list((tmp_path / "cut").glob(place))) < count:
            time.sleep(0.003)
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        for path in (tmp_path / "cut").glob("**/*.png"):
            read_image(path)  # none is half there
    finished = start(argv(tmp_path / "cut"))
    finished.join(300)
    assert finished.exitcode == 0
    assert contents(tmp_path / "cut", "**/*.png") == contents(tmp_path / "whole", "**/*.png")
    assert scored(tmp_path / "cut") == scored(tmp_path / "whole")


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_finished(tmp_path, models, number):
    more = ("--batch", "1", "--seeds-per-prompt", "30", "--steps", "6")
    process = start(command(models, tmp_path / "out", *more), tmp_path / "log")
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("images/**/*.png"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130
    said = (tmp_path / "log").read_text()
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").glob("**/*.partial"))
    assert 3 <= len([read_image(path) for path in (tmp_path / "out").glob("images/**/*.png")]) < 540


@forks
def test_a_full_disk_is_exit_1_and_leaves_nothing_half_written(tmp_path, models):
    """A limit on the size of files, below that of an image, stands for the full disk."""
    more = ("--size", "128x128", "--scorer", "none")
    process = start(command(models, tmp_path / "out", *more), tmp_path / "log", largest_file=9000)
    process.join(60)
    assert process.exitcode == 1
    log = (tmp_path / "log").read_text()
    assert "File too large" in log
    assert "Traceback" not in log
    assert not list((tmp_path / "out").glob("images/**/*.p*"))
    assert main(command(models, tmp_path / "out", *more)) == 0


def test_lines_survive_a_cut_and_name_damage(tmp_path):
    path = tmp_path / "scores.jsonl"
    append_jsonl(path, [{"a": "x\u2028y"}, {"a": 2}])
    append_jsonl(tmp_path / "scores-1of2.jsonl", [{"a": 3}])
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        truncate_partial_line(path)
        append_jsonl(path, [{"a": 4}])
        expected = [{"a": "x\u2028y"}, {"a": 2}][: whole[:end].count(b"\n")]
        assert read_shards(tmp_path, "scores") == [{"a": 3}, *expected, {"a": 4}]
    path.write_bytes(b'{"a": 1}\nhoppla\n{"a": 2}\n')
    with pytest.raises(InputError, match=r"Line 2 of .*scores\.jsonl is damaged"):
        read_shards(tmp_path, "scores")
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_jsonl(path, [{"a": math.nan}])


# -- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_of_the_images_on_the_disk(tmp_path, models):
    pair = ("--scorer", f"clipscore={models / 'clip'}", f"pickscore={models / 'pick'}")
    assert main(command(models, tmp_path, *pair)) == 0
    clip = load_scorer("clipscore", models / "clip")
    for row in read_shards(tmp_path, "scores"):
        with Image.open(tmp_path / row["image"]) as picture:
            image = torch.from_numpy(np.array(picture)).float()[None] / 255
        if row["metric"] == "clipscore":
            assert row["score"] == pytest.approx(clip.score(image, [row["prompt"]]).item(), abs=1e-5)
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["metric"] for row in results["methods"]} == {"clipscore", "pickscore"}
    assert results["about"]["metrics"]["clipscore"] == {"factor": 100, "label": "CLIPScore ×100"}
    assert {row["category"] for row in results["categories"]} == {"circle", "square"}


def test_preference_models_come_and_go_one_by_one(tmp_path, models, monkeypatch):
    alive, load = [], scorers.load_scorer

    def watched(kind, *args, **kw):
        assert [ref() for _, ref in alive] == [None] * len(alive)
        scorer = load(kind, *args, **kw)
        alive.append((kind, weakref.ref(scorer.model)))
        return scorer

    monkeypatch.setattr(scorers, "load_scorer", watched)
    three = [f"{kind}={models / folder}" for kind, folder in (("clipscore", "clip"), ("pickscore", "pick"))]
    assert main(command(models, tmp_path, "--scorer", *three)) == 0
    assert [kind for kind, _ in alive] == ["clipscore", "pickscore"]


def test_a_metric_without_weights_is_named_and_the_others_run(tmp_path, models, caplog):
    more = ("--scorer", f"clipscore={models / 'clip'}", "hpsv2=nowhere.pt", f"aesthetic={models / 'clip'}")
    assert main(command(models, tmp_path, *more)) == 1
    assert "No weights of HPSv2 are at nowhere.pt: put HPS_v2_compressed.pt there" in caplog.text
    assert {row["metric"] for row in read_shards(tmp_path, "scores")} == {"clipscore"}
    results = json.loads((tmp_path / "results.json").read_text())
    missing = " ".join(results["about"]["missing"])
    assert "HPSv2 are at nowhere.pt" in missing
    assert "aesthetic" in missing  # a CLIP is none, which loading finds out
    assert "HPSv2 are at nowhere.pt" in (tmp_path / "report.md").read_text()


def test_without_scorers_there_are_images_and_no_report(tmp_path, models):
    assert main(command(models, tmp_path, "--scorer", "none")) == 0
    assert len(list(tmp_path.glob("images/**/*.png"))) == 3 * len(PROMPTS)
    assert not (tmp_path / "report.html").exists()


# -- images -----------------------------------------------------------------------------------------------------------


def test_an_image_is_written_whole_or_not_at_all(tmp_path):
    image = torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "a.png"
    write_image(path, image, {"prompt": "grün 🟩", "seed": 2**60})
    assert (read_image(path) - image).abs().max() <= 0.5 / 255 + 1e-6
    assert read_metadata(path) == {"prompt": "grün 🟩", "seed": 2**60}
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(InputError, match="holds NaN"):
        write_image(tmp_path / "b.png", image / 0 * 0, {})
    with pytest.raises(TypeError):
        write_image(tmp_path / "b.png", image, {"a": object()})
    assert not (tmp_path / "b.png").exists()
    write_image(tmp_path / "c.png", image[:4], {})
    with pytest.raises(InputError, match="different sizes"):
        read_images([path, tmp_path / "c.png"])
    Image.new("L", (5, 4), 128).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (4, 5, 3)
    assert read_metadata(tmp_path / "grey.png") == {}
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="is damaged or no picture"):
        read_image(path)


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--base", "./nowhere"), "There is no base model ./nowhere"),
        (("--prompts", "nowhere.txt"), "There is no prompt file nowhere.txt"),
        (("--npnet", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--npnet", "A", "x/A"), "Two nets are named A"),
        (("--npnet", "standard=A"), "A net is named standard as a method is"),
        (("--npnet", "b/c=A"), "cannot be a folder's name"),
        (("--methods", "magic"), "There is no method magic: choose some of standard, inversion"),
        (("--methods", "inversion"), "1 nets came that no method uses"),
        (("--seeds-per-prompt", "0"), "Prompts without seeds make no images"),
        (("--seeds", "5"), "--seeds 5 came"),
        (("--seeds", "5", "6", "--seeds-per-prompt", "3"), "3 seeds per prompt"),
        (("--limit", "0"), "--limit 0 came"),
        (("--limit", "1"), "A wrong-prompt control needs another prompt"),
        (("--batch", "0"), "--batch 0 came"),
        (("--steps", "0"), "0 denoising steps make no image"),
        (("--sampler", "magic"), "There is no sampler 'magic'"),
        (("--spacing", "ays"), "Spacing ays exists for 10 steps"),
        (("--size", "64"), "The size 64 came: give WIDTHxHEIGHT"),
        (("--size", "60x64"), "use multiples of 8 pixels"),
        (("--scorer", "taste"), "There is no preference model taste"),
        (("--scorer", "hpsv2=nowhere"), "No weights of HPSv2 are at nowhere"),
        (("--scorer", "clipscore=a", "clipscore=b"), "clipscore was named twice"),
        (("--methods", "npnet", "inversion", "--steps", "1"), "needs 2 noise levels and got 1"),
        (("--methods", "npnet", "repaint", "--steps", "1"), "needs 2 noise levels and got 1"),
        (("--methods", "npnet", "repaint", "--repaint-rounds", "0"), "Repainting 0 times"),
        (("--methods", "npnet", "inversion", "--rounds", "0"), "Re-denoising 0 times"),
        (("--fid", "nowhere"), "There is no folder nowhere"),
        (("--worker", "2/2"), "--worker 2/2 came"),
        (("--dataset", "nowhere"), "nowhere is no noise prompt dataset"),
        (("--device", "cuda:7"), "cuda:7"),
        (("--base", "sdxl"), "The net of method npnet is for sd models (4 channels, prompts 32 wide)"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, models, more, message, capsys):
    more = [str(models / word) if word == "sdxl" else word for word in more]
    more = [word.replace("A", str(models / "a.safetensors")) if word.endswith("=A") else word for word in more]
    assert main(command(models, tmp_path / "set", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("npnet evaluate: ")
    assert message in error
    assert not (tmp_path / "set" / "images").exists()


def test_a_net_of_another_family_is_refused_though_it_would_fit(base):
    npnet = tiny_npnet(0)
    npnet.config = dataclasses.replace(npnet.config, family="sd2")
    methods = choose_methods(["npnet"], {"npnet": npnet})
    words = r"is for sd2 models \(4 channels, prompts 32 wide\) and .* is one of the sd models"
    with pytest.raises(InputError, match=words):
        check_methods(methods, base, [SETTING], REDENOISING)


def test_nothing_to_compare(tmp_path, models, capsys):
    argv = command(models, tmp_path)
    argv = argv[: argv.index("--npnet")] + argv[argv.index("--npnet") + 2 :]
    assert main(argv) == 2
    assert "Method npnet came without a net: name a file with --npnet" in capsys.readouterr().err
    assert main([*argv, "--methods", "standard"]) == 2
    assert "There is nothing to compare standard with" in capsys.readouterr().err


def test_names_of_nets(tmp_path):
    (tmp_path / "lr=1e-4").mkdir()
    (tmp_path / "lr=1e-4" / "npnet.safetensors").touch()
    within = str(tmp_path / "lr=1e-4" / "npnet.safetensors")
    assert name_npnets([within, f"mine={within}", "x.pth"]) == {
        "npnet": Path(within),
        "mine": Path(within),
        "x": Path("x.pth"),
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--base", "other"), "base model"),
        (("--precision", "bf16"), "precision float32, not bfloat16"),
        (("--npnet", "npnet=b.safetensors"), "net npnet "),
        (("--scorer", "clipscore=pick"), "weights of clipscore"),
        (("--methods", "npnet", "inversion", "--rounds", "2"), "inversion guidance 5.5 down and 1 back, 1 round"),
    ],
)
def test_a_folder_that_holds_another_run(models, more, message, capsys):
    folder = models / "begun"
    if not folder.exists():
        assert main(command(models, folder, "--methods", "npnet", "inversion")) == 0
        tiny_pipelines.tiny_sd(models / "other", seed=1)
    places = {"other": models / "other", "npnet=b.safetensors": f"npnet={models / 'b.safetensors'}"}
    places["clipscore=pick"] = f"clipscore={models / 'pick'}"
    before = contents(folder, "**/*")
    assert main(command(models, folder, *[str(places.get(word, word)) for word in more])) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "already holds another run" in error
    assert message in error
    assert contents(folder, "**/*") == before


def test_images_of_other_origin(tmp_path, models, capsys):
    (tmp_path / "images").mkdir()
    assert main(command(models, tmp_path)) == 2
    assert "holds images and no made-with.json" in capsys.readouterr().err


def test_other_programs_files_beside_a_scorer_are_not_of_it(tmp_path):
    """What a file browser leaves behind between two runs makes no other run."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = ends_hash(tmp_path)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").touch()
    assert ends_hash(tmp_path) == before
    (tmp_path / "config.json").touch()
    assert ends_hash(tmp_path) != before
