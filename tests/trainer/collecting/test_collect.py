"""npnet collect on tiny real pipelines: what is made, what it costs, and that nothing stops it for good."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.npd import NPDReader, NPDWriter, PairKey
from npnet_core.preference import Scorer
from npnet_core.redenoising import Level
from tests import tiny_pipelines
from tests.tiny_scorers import write_clip
from trainer import bases
from trainer.bases import Schedule, load_base
from trainer.collecting import scorers
from trainer.collecting.batches import batches
from trainer.collecting.collect import collect
from trainer.collecting.keys import draw_seeds, pair_keys, share_of
from trainer.collecting.manifest import comfyui_sigma, manifest, open_dataset
from trainer.collecting.pairs import make_pairs
from trainer.collecting.recipe import Recipe
from trainer.commands.cli import main
from trainer.commands.collect import Options, recipe_from
from trainer.commands.workers import this_worker

SIZE = 64
SHAPE = (4, 8, 8)
PROMPTS = [f"{count} {colour} circle" for count in ("one", "a") for colour in ("red", "blue", "green")]
RECIPE = Recipe(Schedule("ddim", 2), height=SIZE, width=SIZE)


class Palette(Scorer):
    """How much of the colour that is drawn from the prompt an image has: ⟨mean colour, colour⟩.

    Attributes:
        calls: number of images of each call.
    """

    def __init__(self, kind: str = "palette"):
        super().__init__(kind, nn.Module())
        self.calls: list[int] = []

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls.append(len(images))
        colours = torch.stack([self.colour(prompt) for prompt in prompts])
        return (images.mean((1, 2)) * colours).sum(-1)

    def colour(self, prompt: str) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.kind} {prompt}".encode()))
        return torch.randn(3, generator=generator)


forks = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch: Linux only")


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """sd, sdxl, sd2, hunyuan-dit: base models; clip, pick: preference models; prompts.txt."""
    root = tmp_path_factory.mktemp("models")
    tiny_pipelines.tiny_sd(root / "sd")
    tiny_pipelines.tiny_sdxl(root / "sdxl")
    tiny_pipelines.tiny_sd(root / "sd2", 1024, prediction="v_prediction")
    tiny_pipelines.tiny_hunyuan_dit(root / "hunyuan-dit")
    write_clip(root / "clip", salt=1)
    write_clip(root / "pick", salt=2)
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    return root


@pytest.fixture(scope="session")
def base(models):
    return load_base(models / "sd")


def gather(folder, base, recipe=RECIPE, keys=None, models=(), batch=4, images=None) -> NPDReader:
    keys = pair_keys(PROMPTS, range(1025), 1, SHAPE) if keys is None else keys
    settings = manifest(base, recipe, [model.kind for model in models])
    with NPDWriter(folder, settings, worker="w") as writer:
        collect(base, models, recipe, keys, writer, batch=batch, images=images)
    return NPDReader(folder, verify=True)


def command(models, out, *more) -> list[str]:
    argv = ["collect", "--base", models / "sd", "--prompts", models / "prompts.txt", "--out", out]
    argv += ["--scorer", f"clipscore={models / 'clip'}", f"pickscore={models / 'pick'}"]
    argv += ["--steps", 2, "--height", SIZE, "--width", SIZE, "--device", "cpu", *more]
    return list(map(str, argv))


@contextmanager
def counted(*modules):
    """The number of rows of each call of any of the modules."""
    rows = []

    def count(module, args, kwargs):
        rows.append(len(args[0] if args else kwargs["input_ids"]))

    hooks = [module.register_forward_pre_hook(count, with_kwargs=True) for module in modules]
    yield rows
    for hook in hooks:
        hook.remove()


# -- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "changes", "evaluations"),
    [
        (Schedule("ddim", 5), {}, 2 * 5 + 0.5),
        (Schedule("ddim", 5), {"rounds": 3}, 2 * 5 + 0.5 + 1.5 * 2),
        (Schedule("ddim", 5), {"depth": 3}, 2 * 5 + 0.5 + 1.5 * 2),
        (Schedule("ddim", 5), {"depth": 3, "inversion": "fixed-point"}, 2 * 5 + 1 + 2 * 2),
        (Schedule("dpm-solver-multistep", 4), {}, 2 * 4 + 0.5),
        (Schedule("euler", 4, "trailing"), {}, 2 * 4 + 1.5 * 1),  # its first step cannot be shared
        (Schedule("euler", 4, "trailing"), {"rounds": 3}, 2 * 4 + 1.5 * 3),
        (Schedule("heun", 4), {}, 2 * 7 + 0.5),  # which evaluates seven times in four steps
    ],
)
def test_guided_evaluations_per_pair(tmp_path, base, schedule, changes, evaluations):
    recipe = Recipe(schedule, height=SIZE, width=SIZE, **changes)
    with counted(base.network) as rows:
        reader = gather(tmp_path, base, recipe, models=[Palette()])
    assert len(reader) == len(PROMPTS)
    assert sum(rows) == len(PROMPTS) * evaluations * 2  # a guided evaluation is two rows


@pytest.mark.parametrize("rounds", [1, 2])
def test_without_scorers_no_image_is_made(tmp_path, base, rounds):
    recipe = Recipe(Schedule("ddim", 5), rounds=rounds, height=SIZE, width=SIZE)
    with counted(base.network) as rows, counted(base.pipe.vae.decoder) as decoded:
        reader = gather(tmp_path, base, recipe)
    assert sum(rows) == len(PROMPTS) * 1.5 * rounds * 2
    assert decoded == []
    assert reader.scorers == []


@pytest.mark.parametrize("batch", [1, 4, 6, 100])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_each_prompt_is_encoded_once(tmp_path, models, kind, batch):
    base = load_base(models / kind)
    keys = pair_keys(PROMPTS, range(1025), 3, SHAPE)
    with counted(base.pipe.text_encoder) as rows:
        gather(tmp_path, base, Recipe(Schedule("ddim", 2), height=SIZE, width=SIZE), keys, batch=batch)
    assert sum(rows) == len(PROMPTS) + (kind == "sd")  # and the empty one, which SDXL does without


def test_parts_that_take_turns_make_the_same_pairs(tmp_path, base):
    readers = [gather(tmp_path / str(turns), replace(base, in_turns=turns), batch=2) for turns in (True, False)]
    assert [record.key for record in readers[0].records] == [record.key for record in readers[1].records]
    assert all(torch.equal(*sides) for pairs in zip(*readers, strict=True) for sides in zip(*pairs, strict=True))


def test_everything_of_a_batch_is_one_call(tmp_path, base):
    models = [Palette("a"), Palette("b")]
    with counted(base.pipe.vae.decoder) as decoded, counted(base.network) as rows:
        gather(tmp_path, base, models=models, batch=4)
    assert decoded == models[0].calls == models[1].calls == [8, 4]
    # four pairs: first step 8, inversion 4; images: 4 targets at step one, all 8 at step two, both branches
    assert rows == [8, 4, 8, 16, 4, 2, 4, 8]


def test_sdxl_turbo_is_a_preset_of_sdxl(tmp_path, models, capsys):
    """Its images without guidance; its pairs are made with SDXL and SDXL's guidance, one row of which is unguided."""
    argv = command(models, tmp_path / "set", "--preset", "sdxl-turbo", "--limit", "2")
    argv[argv.index("--base") + 1] = str(models / "sdxl")
    assert main(argv) == 2
    assert "has its guidance built in" in capsys.readouterr().err
    assert main([*argv, "--redenoise-with", str(models / "sdxl")]) == 0
    reader = NPDReader(tmp_path / "set", verify=True)
    assert (reader.manifest.cfg, reader.manifest.inversion_cfg, reader.manifest.guidance) == (5.5, 1.0, "cfg")
    assert reader.manifest.redenoised_with is not None
    recorded = reader.manifest.recorded
    assert (recorded["sampler"], recorded["redenoised_with_model"]) == ("euler-ancestral", str(models / "sdxl"))


def test_every_scorer_is_loaded_once(tmp_path, models, monkeypatch):
    loaded = []
    load = scorers.load_scorer
    monkeypatch.setattr(
        scorers, "load_scorer", lambda kind, *args, **kw: loaded.append(kind) or load(kind, *args, **kw)
    )
    assert main(command(models, tmp_path / "set", "--batch", "1")) == 0
    assert loaded == ["clipscore", "pickscore"]


# -- what is made -----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_pipelines_own_images(tmp_path, models, base):
    """Every pair's scores, from images that diffusers makes of the stored noises one by one."""
    palettes = [Palette("a"), Palette("b")]
    keys = pair_keys(PROMPTS[:3], range(1025), 2, SHAPE)
    reader = gather(tmp_path, base, keys=keys, models=palettes)
    pipe = diffusers.DiffusionPipeline.from_pretrained(models / "sd", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    assert [record.key for record in reader.records] == sorted(keys)
    for record, pair in zip(reader.records, reader, strict=True):
        assert list(record.scores) == ["a", "b"]
        for side, noise in enumerate(pair):
            image = pipe(
                record.key.prompt,
                latents=noise[None].float(),
                num_inference_steps=2,
                guidance_scale=5.5,
                height=SIZE,
                width=SIZE,
                output_type="pt",
            ).images
            for palette in palettes:
                expected = palette.score(torch.as_tensor(image).permute(0, 2, 3, 1), [record.key.prompt]).item()
                assert record.scores[palette.kind][side] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("kind", ["sdxl", "sd2", "hunyuan-dit"])
def test_targets_are_eq_12_whatever_their_batch(tmp_path, models, kind):
    base = load_base(models / kind)
    reader = gather(tmp_path, base, models=[Palette()])
    first, second = bases.levels(base, RECIPE.schedule)[:2]
    for record, (source, target) in zip(reader.records, reader, strict=True):
        x = bases.initial_noise(base, [record.key.seed], SIZE, SIZE)
        assert torch.equal(source, x[0].half())
        denoise = bases.denoiser(base, bases.encode(base, [record.key.prompt]))
        eps_l = (x - first.alpha * denoise(x, first, 5.5)) / first.sigma
        lower = second.alpha / first.alpha * (x - first.sigma * eps_l) + second.sigma * eps_l
        eps_w = (lower - second.alpha * denoise(lower, second, 1.0)) / second.sigma
        scale = (first.alpha * second.sigma - second.alpha * first.sigma) / second.alpha
        change = scale * (eps_l - eps_w)
        assert change.std() > 0.01
        assert (target - x - change).abs().max() < 0.01 * change.std() + 2e-3  # fp16 on the disk


def test_settings_are_written_down(tmp_path, models):
    """SDXL's ten leading steps begin at 901, 801, 701; alpha² is the product of 1 - beta."""
    base = load_base(models / "sdxl")
    alphas_cumprod = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    sigmas = [((1 - a) / a) ** 0.5 for a in alphas_cumprod[[901, 801, 701]]]
    settings = manifest(base, Recipe(), ["hpsv2"])
    assert settings.sigmas == pytest.approx(sigmas[:2], rel=1e-5)
    deeper = manifest(base, Recipe(depth=2), ["hpsv2"])
    assert deeper.sigmas == pytest.approx(sigmas, rel=1e-5)
    assert settings.differences(deeper) == [f"sigmas {settings.sigmas} and {deeper.sigmas}"]
    assert (settings.base_family, settings.cfg, settings.inversion_cfg, settings.rounds) == ("sdxl", 5.5, 1.0, 1)
    recorded = {"sampler": "ddim", "steps": 10, "spacing": None, "precision": "float32", "scorers": ["hpsv2"]}
    assert recorded.items() <= settings.recorded.items()
    assert settings.recorded["base_model"] == str(models / "sdxl")
    json.dumps(settings.recorded)


def test_models_that_start_from_pure_noise(tmp_path, models):
    """ComfyUI counts their first sigma as 4519, where it would be infinite."""
    scheduler = tiny_pipelines.ddim_scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    scheduler.save_pretrained(models / "sd2" / "scheduler")
    base = load_base(models / "sd2")
    recipe = Recipe(Schedule("ddim", 4, "trailing"), height=SIZE, width=SIZE)
    reader = gather(tmp_path, base, recipe, models=[Palette()])
    assert bases.levels(base, recipe.schedule)[0] == Level(0.0, 1.0, 999)
    assert reader.manifest.sigmas[0] == pytest.approx(4518.85, rel=1e-4)
    assert all(target.std() == pytest.approx(1, abs=0.5) for _, target in reader)


def test_flow_levels_stand_in_the_manifest_as_they_are():
    """ComfyUI counts them from 0 to 1, as diffusers does; what diffuses it counts at alpha = 1."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas[:2].tolist()
    assert [comfyui_sigma(Level.flow(sigma), "flow_prediction") for sigma in sigmas] == sigmas
    assert comfyui_sigma(Level.diffusion(0.2, 901), "epsilon") == pytest.approx(2.0)


def test_images_are_kept_with_what_made_them(tmp_path, base):
    palette = Palette()
    reader = gather(tmp_path / "set", base, models=[palette], images=tmp_path / "images")
    files = sorted((tmp_path / "images").iterdir())
    assert len(files) == 2 * len(PROMPTS)
    seen = set()
    for path in files:
        with Image.open(path) as picture:
            about = json.loads(picture.text["npnet"])
            pixels = torch.from_numpy(np.array(picture)).float()[None] / 255
        record = next(r for r in reader.records if r.key.prompt == about["prompt"])
        score = record.scores["palette"][["source", "target"].index(about["noise"])]
        assert about["scores"] == {"palette": score}
        assert about["seed"] == record.key.seed
        assert palette.score(pixels, [about["prompt"]]).item() == pytest.approx(score, abs=0.01)
        seen.add((about["prompt"], about["noise"]))
    assert len(seen) == len(files)


def test_images_without_scorers(tmp_path, base):
    gather(tmp_path / "set", base, images=tmp_path / "images")
    assert len(list((tmp_path / "images").iterdir())) == 2 * len(PROMPTS)


# -- which pairs ------------------------------------------------------------------------------------------------------


def test_seeds_follow_from_the_prompt_alone():
    seeds = range(100, 116)
    drawn = [draw_seeds(f"prompt {i}", seeds, 1)[0] for i in range(4000)]
    assert drawn == [draw_seeds(f"prompt {i}", seeds, 1)[0] for i in range(4000)]
    assert scipy.stats.chisquare([drawn.count(seed) for seed in seeds]).pvalue > 1e-3
    for count in range(1, 17):
        some = draw_seeds("a", seeds, count)
        assert len(set(some)) == count
        assert some == draw_seeds("a", seeds, 16)[:count]  # more seeds add to those that were there
        assert set(some) <= set(seeds)


def test_seeds_are_the_same_on_every_machine():
    """random() is what Python promises never to change; its first numbers for a text, by hand from SHA-512."""
    assert draw_seeds("a red circle", range(1025), 3) == [
        int(number * 1025) for number in itertools.islice(iter(random.Random("a red circle").random, None), 3)
    ]


keys_of_prompts = st.lists(st.integers(1, 9), max_size=12).map(
    lambda counts: [PairKey(f"p{i}", seed, SHAPE) for i, count in enumerate(counts) for seed in range(count)]
)


@given(keys_of_prompts, st.integers(1, 6))
def test_batches_hold_every_pair_once_and_split_no_prompt_that_fits(keys, size):
    chunks = list(batches(keys, size))
    assert [key for chunk in chunks for key in chunk] == keys
    assert all(len(chunk) <= size for chunk in chunks)
    counts = Counter(key.prompt for key in keys)
    for chunk in chunks:
        inside = Counter(key.prompt for key in chunk)
        assert inside == Counter({prompt: counts[prompt] for prompt in inside}) or len(inside) == 1


@given(keys_of_prompts, st.integers(1, 5))
def test_workers_share_the_prompts(keys, workers):
    shares = [share_of(keys, worker, workers) for worker in range(workers)]
    assert sorted(key for share in shares for key in share) == sorted(keys)
    prompts = [{key.prompt for key in share} for share in shares]
    assert sum(map(len, prompts)) == len({key.prompt for key in keys})
    assert max(map(len, prompts)) - min(map(len, prompts)) <= 1


def test_worker_numbers(monkeypatch):
    assert this_worker(None) == (0, 1)
    assert this_worker("3/4") == (3, 4)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert this_worker(None) == (2, 8)
    assert this_worker("3/4") == (3, 4)


def test_limit_counts_over_all_workers(tmp_path, models):
    more = ("--limit", "4", "--seeds-per-prompt", "3", "--scorer", "none")
    for worker in ("0/2", "1/2"):
        assert main(command(models, tmp_path / "set", *more, "--worker", worker)) == 0
    expected = pair_keys(PROMPTS, range(1025), 3, SHAPE)[:4]
    assert [record.key for record in NPDReader(tmp_path / "set").records] == sorted(expected)


# -- stopping and going on --------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


class Stopping(Palette):
    """Fails at a call."""

    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def rate(self, images, prompts):
        if len(self.calls) == self.at:
            raise Stop
        return super().rate(images, prompts)


@pytest.mark.parametrize(("seeds", "batch"), [(1, 4), (2, 4), (3, 2)])
def test_going_on_gives_the_same_set_to_the_bit(tmp_path, base, seeds, batch):
    keys = pair_keys(PROMPTS, range(1025), seeds, SHAPE)
    whole = gather(tmp_path / "whole", base, keys=keys, models=[Palette()], batch=batch)
    calls = 0
    for at in (0, 1, 0):
        palette = Stopping(at)
        with pytest.raises(Stop):
            gather(tmp_path / "set", base, keys=keys, models=[palette], batch=batch)
        calls += sum(palette.calls)
    palette = Palette()
    reader = gather(tmp_path / "set", base, keys=keys, models=[palette], batch=batch)
    assert reader.hash == whole.hash
    assert reader.duplicates == 0
    assert calls + sum(palette.calls) == 2 * len(keys)  # nothing was made twice


def varied(folder: Path, key: PairKey, noise: Tensor, settings) -> None:
    """Another noise under a key, as Save Noise Pair stores one."""
    with NPDWriter(folder, settings, worker="comfyui") as writer:
        assert writer.add(noise, noise, prompt=key.prompt, seed=key.seed)


def test_going_on_beside_other_noises_of_its_seeds(tmp_path, base):
    """Another noise that is stored under the key of a drawn seed is not taken for it, in whatever order they came."""
    keys = pair_keys(PROMPTS, range(1025), 1, SHAPE)
    settings = manifest(base, RECIPE, [])
    other = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    varied(tmp_path, keys[0], other, settings)
    with pytest.raises(InputError, match=f"another noise for seed {keys[0].seed} of the prompt '{keys[0].prompt}'"):
        gather(tmp_path, base)
    assert len(NPDReader(tmp_path)) == 1
    varied(tmp_path, keys[0], bases.initial_noise(base, [keys[0].seed], SIZE, SIZE)[0], settings)
    assert len(gather(tmp_path, base)) == len(keys) + 1
    varied(tmp_path, keys[1], other, settings)
    assert len(gather(tmp_path, base)) == len(keys) + 2


def test_going_on_where_another_processor_began(tmp_path, base):
    """Its noise has other last bits, of which some survive fp16."""
    keys = pair_keys(PROMPTS, range(1025), 1, SHAPE)
    drawn = bases.initial_noise(base, [keys[0].seed], SIZE, SIZE)[0]
    other = drawn * (1 + 4e-4)
    assert not torch.equal(drawn.half(), other.half())
    varied(tmp_path, keys[0], other, manifest(base, RECIPE, []))
    reader = gather(tmp_path, base)
    assert [record.key for record in reader.records] == sorted(keys)


def test_a_finished_run_is_left_alone(tmp_path, models, capfd):
    assert main(command(models, tmp_path / "set")) == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "parts").iterdir()}
    assert main(["collect", "--config", str(tmp_path / "set" / "collect-0of1.toml")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "parts").iterdir()} == files
    assert f"{len(PROMPTS)}/{len(PROMPTS)}" in capfd.readouterr().err


def own_lock(bar: type[tqdm]) -> None:
    """Forks share the lock of the progress bars, and one of them may be killed while it holds it."""
    bar.set_lock(threading.RLock())
    for subclass in bar.__subclasses__():
        own_lock(subclass)


def start(argv: list[str], *, pairs_per_part: int = 64, log: Path | None = None, largest_file: int | None = None):
    """``npnet`` in a process of its own that has imported everything already."""

    def child() -> None:
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background
        own_lock(tqdm)
        os.environ["TQDM_MININTERVAL"] = "0"
        sys.modules["trainer.collecting.manifest"].PAIRS_PER_PART = pairs_per_part
        if log is not None:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # not pytest's
        os._exit(main(argv))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def wait_for(path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and re.search(pattern, path.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_writes_what_is_finished(tmp_path, models, number):
    process = start(command(models, tmp_path / "set", "--batch", "1"), log=tmp_path / "log")
    wait_for(tmp_path / "log", rf"[2-5]/{len(PROMPTS)}")
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130
    assert "interrupted" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert 2 <= len(NPDReader(tmp_path / "set", verify=True)) < len(PROMPTS)


def finish(workers: list[multiprocessing.Process]) -> None:
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0


def kill_and_restart(models: Path, folder: Path, kills: int) -> None:
    """Two workers, one of them killed at a random moment and started again, until so many were killed at work."""

    def commands(out: Path) -> list[list[str]]:
        more = ("--seeds-per-prompt", 3, "--batch", 2, "--worker")
        return [command(models, out, *more, f"{i}/2") for i in range(2)]

    finish([start(argv) for argv in commands(folder / "whole")])
    whole = NPDReader(folder / "whole", verify=True)
    assert len(whole) == 3 * len(PROMPTS)
    generator, killed = random.Random(0), 0
    while killed < kills:
        out = folder / f"after-{killed}"
        workers = [start(argv, pairs_per_part=2) for argv in commands(out)]
        while killed < kills and any(worker.is_alive() for worker in workers):
            time.sleep(generator.uniform(0, 1.5))
            victim = generator.randrange(2)
            workers[victim].kill()
            workers[victim].join(60)
            if workers[victim].exitcode == -signal.SIGKILL:
                killed += 1
                workers[victim] = start(commands(out)[victim], pairs_per_part=2)
        finish(workers)
        survivor = NPDReader(out, verify=True)
        assert survivor.duplicates == 0
        assert survivor.hash == whole.hash  # keys, noises and scores


@forks
def test_three_kills(tmp_path, models):
    kill_and_restart(models, tmp_path, 3)


@forks
@pytest.mark.long
def test_thirty_kills(tmp_path, models):
    kill_and_restart(models, tmp_path, 30)


@pytest.mark.long
def test_under_torchrun(tmp_path, models):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "trainer"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *command(models, tmp_path / "run")], check=True, env=environment)
    for i in range(2):
        assert main(command(models, tmp_path / "set", "--worker", f"{i}/2")) == 0
    one, two = NPDReader(tmp_path / "run"), NPDReader(tmp_path / "set")
    assert [record.key for record in one.records] == [record.key for record in two.records]
    assert {part.name.split("-")[0] for part in one.parts} == {"0of2", "1of2"}


# -- options ----------------------------------------------------------------------------------------------------------


def test_presets_files_and_flags(tmp_path, models):
    """The preset's values, over them the file's, over them the flags'; all of it is saved, and reads back."""
    config = tmp_path / "c.toml"
    config.write_text('preset = "dreamshaper-xl-turbo"\nsteps = 3\ncfg = 2.5\n')
    out = tmp_path / "set"
    argv = ["collect", "--base", models / "sd", "--prompts", models / "prompts.txt", "--out", out, "--scorer", "none"]
    assert main([*map(str, argv), "--config", str(config), "--cfg", "3"]) == 0
    saved = (out / "collect-0of1.toml").read_text()
    for line in ('sampler = "dpm-solver-multistep"', "steps = 3", "cfg = 3.0", "inversion_cfg = 1.0", "height = 128"):
        assert line in saved.splitlines()
    assert NPDReader(out).manifest.cfg == 3.0


def test_the_presets_are_the_papers():
    for preset, steps, cfg in (("sdxl", 10, 5.5), ("dreamshaper-xl-turbo", 4, 3.5), ("hunyuan-dit", 10, 5.0)):
        recipe = recipe_from(Options(preset=preset))
        assert (recipe.schedule.steps, recipe.cfg, recipe.inversion_cfg, recipe.rounds) == (steps, cfg, 1.0, 1)


@pytest.mark.parametrize(("kind", "preset", "cfg"), [("hunyuan-dit", "hunyuan-dit", 5.0), ("sd", "sdxl", 5.5)])
def test_the_preset_is_the_familys_own_by_default(tmp_path, models, kind, preset, cfg):
    """It is saved by its name, and the saved file goes on with the dataset."""
    out = tmp_path / "set"
    argv = ["collect", "--base", models / kind, "--prompts", models / "prompts.txt", "--out", out, "--scorer", "none"]
    assert main([*map(str, argv), "--limit", "1"]) == 0
    saved = out / "collect-0of1.toml"
    assert {f'preset = "{preset}"', f"cfg = {cfg}"} <= set(saved.read_text().splitlines())
    assert NPDReader(out).manifest.cfg == cfg
    assert main(["collect", "--config", str(saved), "--limit", "2"]) == 0
    assert len(NPDReader(out)) == 2


def test_a_dry_run_says_what_it_will_take(tmp_path, models, capsys):
    more = ("--seeds-per-prompt", "4", "--save-images")
    assert main(command(models, tmp_path / "set", *more, "--dry-run")) == 0
    prompts = r"; 6 prompts, once encoded for a fit: (\S+) GB"
    prompts += (
        r"; memory: (\S+) GB of weights, all parts \(text .*, network .*, vae .*\), and what is computed with them"
    )
    said = re.fullmatch(rf"24 pairs: (\S+) at (\S+) pairs per second, (\S+) GB{prompts}\n", capsys.readouterr().out)
    assert not (tmp_path / "set").exists()
    start = time.monotonic()
    assert main(command(models, tmp_path / "set", *more)) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "set").rglob("*") if path.is_file())
    assert float(said[3]) * 1e9 == pytest.approx(size, rel=0.3)
    embeds = bases.encode(load_base(models / "sd"), PROMPTS).prompt_embeds
    assert float(said[4]) * 1e9 == pytest.approx(embeds.numel() * 2, rel=0.01)
    assert 24 / float(said[2]) < 3 * (time.monotonic() - start)  # a machine that others use too


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--base", "./nowhere"), "There is no base model ./nowhere"),
        (("--prompts", "nowhere.txt"), "There is no prompt file nowhere.txt"),
        (("--column", "caption"), "has no column caption: it has prompt"),
        (("--worker", "4/4"), "--worker 4/4 came: give I/N"),
        (("--worker", "one"), "--worker one came: give I/N"),
        (("--seeds", "7", "3"), "--seeds 7 3 came"),
        (("--seeds", "7"), "--seeds 7 came"),
        (("--seeds", "1", "4", "--seeds-per-prompt", "5"), "5 seeds per prompt"),
        (("--seeds-per-prompt", "0"), "0 seeds per prompt"),
        (("--batch", "0"), "--batch 0 came"),
        (("--limit", "0"), "--limit 0 came"),
        (("--rounds", "0"), "0 times makes no pair"),
        (("--depth", "0"), "depth 0 makes no pair"),
        (("--depth", "2", "--inversion", "released"), "'released' is for one step and depth 2"),
        (("--steps", "1"), "needs 2 noise levels and got 1"),
        (("--steps", "2", "--inversion", "released"), "needs 3 noise levels and got 2"),
        (("--sampler", "magic"), "There is no sampler 'magic'"),
        (("--height", "60"), "use multiples of 8 pixels"),
        (("--scorer", "taste"), "taste"),
        (("--scorer", "clipscore=nowhere"), "nowhere"),
        (("--scorer", "clipscore=a", "clipscore=b"), "clipscore was named twice"),
        (("--device", "cuda:7"), "cuda:7"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, models, more, message, capsys):
    assert main(command(models, tmp_path / "set", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("npnet collect: ")
    assert message in error
    assert not (tmp_path / "set").exists()


def test_scorers_are_looked_for_before_a_base_model_is_loaded(tmp_path, models, capsys):
    argv = command(models, tmp_path / "set", "--base", str(tmp_path / "nowhere"), "--scorer", "clipscore=gone")
    assert main(argv) == 2
    assert "No weights of CLIPScore are at gone" in capsys.readouterr().err


def test_choices_that_may_be_left_open(tmp_path, models, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(command(models, tmp_path / "set", "--precision", "fp8"))
    assert "choose from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--cfg", "3"), "cfg 5.5 and 3.0"),
        (("--steps", "3"), "sigmas"),
        (("--rounds", "2"), "rounds 1 and 2"),
        (("--sampler", "euler"), "sampler ddim, not euler"),
        (("--scorer", "none"), "scorers ['clipscore', 'pickscore'], not []"),
        (("--precision", "bf16"), "precision float32, not bfloat16"),
        (("--base", "sd2"), "base_family sd and sd2"),
        (("--base", "other"), "base_fingerprint"),
    ],
)
def test_a_folder_that_holds_another_run(tmp_path_factory, models, more, message, capsys):
    folder = models / "begun"
    if not folder.exists():
        assert main(command(models, folder)) == 0
        tiny_pipelines.tiny_sd(models / "other", seed=1)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    more = [str(models / word) if word in ("sd2", "other") else word for word in more]
    assert main(command(models, folder, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert "another" in error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_a_folder_that_holds_something_else(tmp_path, models, capsys):
    (tmp_path / "holiday.jpg").touch()
    assert main(command(models, tmp_path)) == 2
    assert "holds other files" in capsys.readouterr().err


def test_a_damaged_part_is_named(tmp_path, models, capsys):
    assert main(command(models, tmp_path / "set", "--limit", "2")) == 0
    part = next((tmp_path / "set" / "parts").glob("*.jsonl"))
    part.write_bytes(part.read_bytes()[:-20])
    assert main(command(models, tmp_path / "set")) == 2
    assert f"1 of 1 parts of the dataset {tmp_path / 'set'} are damaged ({part.stem}" in capsys.readouterr().err


@forks
def test_a_full_disk_is_exit_1_and_leaves_nothing_half_written(tmp_path, models):
    """A limit on the size of files stands for the full disk."""
    argv = command(models, tmp_path / "set", "--scorer", "none")
    process = start(argv, log=tmp_path / "log", largest_file=3000)
    process.join(60)
    assert process.exitcode == 1
    log = (tmp_path / "log").read_text()
    assert "(File too large): make room" in log
    assert "Traceback" not in log
    assert not any((tmp_path / "set" / "parts").iterdir())
    assert main(argv) == 0


def test_images_with_nan_stop_the_run(tmp_path, models):
    base = load_base(models / "sd")
    base.pipe.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        gather(tmp_path, base, models=[Palette()])


def test_open_dataset_and_make_pairs_serve_other_programs(tmp_path, base):
    """As the shapes world and evaluate use them."""
    keys = pair_keys(PROMPTS[:2], range(3), 1, SHAPE)
    pairs = make_pairs(base, [], RECIPE, keys, bases.encode(base, PROMPTS[:2]))
    with open_dataset(tmp_path / "set", manifest(base, RECIPE, []), worker="demo") as writer:
        collect(base, [], RECIPE, keys, writer)
    reader = NPDReader(tmp_path / "set")
    assert {r.key: i for i, r in enumerate(reader.records)} == {key: sorted(keys).index(key) for key in keys}
    for i, key in enumerate(keys):
        assert torch.equal(reader[sorted(keys).index(key)][1], pairs.target[i].half())
