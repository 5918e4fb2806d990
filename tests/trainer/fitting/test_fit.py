"""npnet fit: what it learns, that it can be stopped anywhere, that processes and batches may share a step."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from npnet_core.golden import golden_noise
from npnet_core.npd import NPDReader
from tests.tiny_fit import BASE, fit_tiny_npnet, make_dataset, options
from tests.tiny_pipelines import tiny_sdxl
from trainer.commands.cli import main
from trainer.commands.fit import run
from trainer.commands.options import save_config
from trainer.data.embeddings import Embeddings
from trainer.fitting.checkpoints import checkpoints
from trainer.fitting.history import History, read_history
from trainer.fitting.split import hold_out
from trainer.fitting.training import lr_factor, update_average

ROOT = Path(__file__).resolve().parents[3]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "pairs")


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "npnet.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.linalg.vector_norm(a[key] - b[key]) <= 1e-5 * torch.linalg.vector_norm(a[key]) for key in a)


def test_learns_a_shift_from_the_prompt(tmp_path, caplog):
    """From the command line to a file that does the same through golden_noise as the log says."""
    caplog.set_level("INFO")
    data, out = make_dataset(tmp_path / "pairs", prompts=100), tmp_path / "run"
    net = "--swin-size 16 --swin-dim 8 --swin-depths 1 1 --swin-heads 1 2 --swin-window 2"
    flags = "--scorer none --validation 0.2 --epochs 8 --batch 16 --lr 0.04 --schedule cosine --ema 0.8 --log-every 1"
    where = ["--dataset", str(data), "--out", str(out), "--device", "cpu"]
    assert main(["fit", *where, *net.split(), *flags.split()]) == 0
    assert "of the change for prompts it never saw" in caplog.messages[-1]

    rows = read_history(out / "log.jsonl")
    assert abs(rows[0]["train_explained"]) < 1e-6  # a new net is the identity
    assert rows[-1]["validation_explained"] > 0.7
    assert rows[-1]["prompt_dependence"] > 0.5
    assert (rows[-1]["step"], rows[-1]["epoch"]) == (80, 8)

    npnet, reader, embeddings = load_npnet(out / "npnet.safetensors"), NPDReader(data), Embeddings(data, BASE)
    _, held_out = hold_out(reader, range(len(reader)), 0.2, 0)
    source, target = (side.float() for side in reader.batch(held_out))
    golden = golden_noise(npnet, source, embeddings.batch([reader.records[i].key.prompt for i in held_out]))
    assert F.mse_loss(golden, target).item() == pytest.approx(rows[-1]["validation_mse"], rel=1e-3)
    assert F.mse_loss(source, target).item() == pytest.approx(rows[-1]["validation_identity_mse"], rel=1e-3)

    metadata = {name: json.loads(npnet.metadata[f"npnet.{name}"]) for name in ("dataset", "selection", "validation")}
    assert metadata["dataset"]["sha256"] == reader.hash
    assert metadata["selection"] == {"scorers": ["none"], "margins": [0.0], "kept": 200, "trained_on": 160}
    assert metadata["validation"]["validation_mse"] == rows[-1]["validation_mse"]
    assert npnet.metadata["npnet.base_model"] == BASE
    assert npnet.config.family == "sdxl"
    assert not npnet.config.misread_swin

    panels = ElementTree.parse(out / "curve.svg").getroot().findall("{http://www.w3.org/2000/svg}g")
    assert len(panels) == 3


def test_prompts_are_read_by_the_base_model_that_the_dataset_names(tmp_path):
    """Once: the second run needs no base model."""
    base = tiny_sdxl(tmp_path / "base")
    data = make_dataset(tmp_path / "pairs", base=str(base), prompts=5)
    run(options(data, tmp_path / "a", epochs=1))
    shutil.rmtree(base)
    run(options(data, tmp_path / "b", epochs=1))
    npnet = load_npnet(tmp_path / "b" / "npnet.safetensors")
    assert (npnet.config.prompt_tokens, npnet.config.prompt_dim) == (77, 64)
    assert npnet.metadata["npnet.base_model"] == str(base)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_the_result_is_a_net_for_sdxl(tmp_path):
    npnet = load_npnet(fit_tiny_npnet(tmp_path))
    noise, prompt = torch.randn(1, 4, 20, 12), torch.randn(1, 77, 2048)
    golden = golden_noise(npnet, noise, prompt)
    assert golden.isfinite().all()
    assert not torch.equal(golden, noise)


def stop_at(step: int, log: Path, number: int = signal.SIGTERM) -> threading.Thread:
    """Send this process a signal once the log has come to a step."""

    def watch() -> None:
        for _ in range(2000):
            rows = read_history(log)
            if rows and rows[-1]["step"] >= step:
                os.kill(os.getpid(), number)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_going_on_gives_the_same_weights_to_the_bit(dataset, tmp_path):
    """Stopped three times, once by Ctrl-C, with everything on that keeps state or draws at random."""
    settings = dict(
        ema=0.9, clip=0.1, warmup=3, schedule="cosine", drop_path=0.5, accumulate=2, batch=4, epochs=6, workers=2
    )
    run(options(dataset, tmp_path / "whole", **settings))
    stopped = 0
    for step, number in ((1, signal.SIGTERM), (7, signal.SIGINT), (16, signal.SIGTERM)):
        watch = stop_at(step, tmp_path / "parts" / "log.jsonl", number)
        with pytest.raises(KeyboardInterrupt):
            run(options(dataset, tmp_path / "parts", **settings))
        watch.join()
        (latest,) = checkpoints(tmp_path / "parts" / "checkpoints")[-1:]
        assert stopped < int(latest.stem) < 24
        stopped = int(latest.stem)
    run(options(dataset, tmp_path / "parts", **settings))

    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    figures = [
        [(row["step"], row["lr"], row["grad_norm"]) for row in read_history(log) if "lr" in row]
        for log in (tmp_path / "whole" / "log.jsonl", tmp_path / "parts" / "log.jsonl")
    ]
    assert figures[0] == figures[1]
    assert [step for step, *_ in figures[0]] == list(range(1, 25))
    assert len(checkpoints(tmp_path / "parts" / "checkpoints")) == 3


def test_stochastic_depth_is_on_while_training(dataset, tmp_path):
    run(options(dataset, tmp_path / "off", drop_path=0.0))
    run(options(dataset, tmp_path / "on", drop_path=0.5))
    assert not equal(weights(tmp_path / "off"), weights(tmp_path / "on"))


def test_two_runs_are_equal_to_the_bit_with_any_number_of_threads(dataset, tmp_path):
    run(options(dataset, tmp_path / "a", workers=1))
    run(options(dataset, tmp_path / "b", workers=3))
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_accumulated_batches_are_one(dataset, tmp_path):
    run(options(dataset, tmp_path / "one", drop_path=0.0, epochs=10))  # 20 steps
    run(options(dataset, tmp_path / "four", drop_path=0.0, epochs=10, batch=4, accumulate=4))
    assert close(weights(tmp_path / "one"), weights(tmp_path / "four"))


def npnet_fit(config: Path, *launcher: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "trainer", "fit", "--config", str(config)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def test_two_processes_are_one_with_twice_the_batch(dataset, tmp_path):
    run(options(dataset, tmp_path / "one", drop_path=0.0, epochs=10))  # 20 steps
    save_config(options(dataset, tmp_path / "two", drop_path=0.0, epochs=10, batch=8), tmp_path / "two.toml")
    finish(npnet_fit(tmp_path / "two.toml", *TORCHRUN))
    assert close(weights(tmp_path / "one"), weights(tmp_path / "two"))
    one, two = (read_history(tmp_path / name / "log.jsonl") for name in ("one", "two"))
    assert two[-1]["validation_mse"] == pytest.approx(one[-1]["validation_mse"], rel=1e-4)
    assert two[5]["train_mse"] == pytest.approx(one[5]["train_mse"], rel=1e-4)


def test_killed_at_any_moment_it_goes_on(dataset, tmp_path):
    settings = dict(epochs=10, batch=4, ema=0.9, drop_path=0.3, checkpoint_every=0.0)
    whole, killed = (options(dataset, tmp_path / name, **settings) for name in ("whole", "killed"))
    save_config(killed, tmp_path / "killed.toml")
    with npnet_fit(tmp_path / "killed.toml") as process:
        while len(checkpoints(tmp_path / "killed" / "checkpoints")) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "killed" / "npnet.safetensors").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as there: LAPACK's last bits depend on them
    try:
        run(killed)
        run(whole)
    finally:
        torch.set_num_threads(threads)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


@pytest.mark.long
def test_two_processes_stop_together_and_go_on(dataset, tmp_path):
    settings = dict(epochs=40, batch=4, ema=0.9, drop_path=0.3)
    for name in ("whole", "stopped"):
        save_config(options(dataset, tmp_path / name, **settings), tmp_path / f"{name}.toml")
    finish(npnet_fit(tmp_path / "whole.toml", *TORCHRUN))
    with npnet_fit(tmp_path / "stopped.toml", *TORCHRUN) as process:
        while not read_history(tmp_path / "stopped" / "log.jsonl"):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.terminate()
        process.communicate(timeout=120)
    (latest,) = checkpoints(tmp_path / "stopped" / "checkpoints")
    assert int(latest.stem) < 160
    finish(npnet_fit(tmp_path / "stopped.toml", *TORCHRUN))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_a_finished_run_stays_as_it_is(dataset, tmp_path, caplog):
    run(options(dataset, tmp_path / "run", epochs=1))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    caplog.set_level("INFO")
    run(options(dataset, tmp_path / "run", epochs=1))
    assert "is finished" in caplog.text
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_bf16_stays_close(dataset, tmp_path):
    run(options(dataset, tmp_path / "fp32", drop_path=0.0))
    run(options(dataset, tmp_path / "bf16", drop_path=0.0, precision="bf16"))
    fp32, bf16 = (read_history(tmp_path / name / "log.jsonl") for name in ("fp32", "bf16"))
    assert bf16[-1]["validation_mse"] == pytest.approx(fp32[-1]["validation_mse"], rel=0.05)
    assert not equal(weights(tmp_path / "fp32"), weights(tmp_path / "bf16"))


@pytest.mark.long
def test_compiled_is_the_same_net(dataset, tmp_path):
    run(options(dataset, tmp_path / "eager", drop_path=0.0))
    run(options(dataset, tmp_path / "compiled", drop_path=0.0, compile=True))
    eager, compiled = weights(tmp_path / "eager"), weights(tmp_path / "compiled")
    assert eager.keys() == compiled.keys()
    assert all(torch.allclose(eager[key], compiled[key], atol=1e-4) for key in eager)


@pytest.mark.parametrize("term", ["svd", "text", "residual"])
def test_a_term_left_out(dataset, tmp_path, term):
    run(options(dataset, tmp_path / "run", without=(term,), epochs=1))
    npnet = load_npnet(tmp_path / "run" / "npnet.safetensors")
    terms = {"svd": npnet.svd_branch, "text": npnet.text_term, "residual": npnet.residual_branch}
    assert [name for name, branch in terms.items() if branch is None] == [term]


def test_any_mixture_of_sizes(tmp_path):
    """The net's own size is the most frequent one; the error is that in the net's view."""
    data = make_dataset(tmp_path / "pairs", sizes=((8, 8), (8, 8), (6, 11), (16, 16)))
    run(options(data, tmp_path / "run"))
    assert load_npnet(tmp_path / "run" / "npnet.safetensors").config.resolution == 8
    assert all(row["train_explained"] < 1 for row in read_history(tmp_path / "run" / "log.jsonl") if "lr" in row)


def test_without_held_out_prompts(dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    run(options(dataset, tmp_path / "run", validation=0.0, epochs=1))
    npnet = load_npnet(tmp_path / "run" / "npnet.safetensors")
    assert json.loads(npnet.metadata["npnet.selection"])["trained_on"] == 40
    assert json.loads(npnet.metadata["npnet.validation"]) == {}
    assert caplog.messages[-1].endswith("3 steps over 40 pairs.")
    rows = read_history(tmp_path / "run" / "log.jsonl")
    assert "<svg" in (tmp_path / "run" / "curve.svg").read_text()
    assert not any(name.startswith("validation") for row in rows for name in row)


def test_selection_is_made_here(dataset, tmp_path):
    run(options(dataset, tmp_path / "run", scorer=("hpsv2",), margin=(0.2,), epochs=1))
    selection = json.loads(load_npnet(tmp_path / "run" / "npnet.safetensors").metadata["npnet.selection"])
    scores = [record.scores["hpsv2"] for record in NPDReader(dataset).records]
    assert selection["kept"] == sum(source + 0.2 < target for source, target in scores)
    assert 0 < selection["trained_on"] < selection["kept"] < len(scores)


def test_what_scored_the_dataset_selects_by_default(dataset, tmp_path):
    for _ in range(2):  # and the same command goes on
        run(options(dataset, tmp_path / "run", scorer=None, epochs=1))
    selection = json.loads(load_npnet(tmp_path / "run" / "npnet.safetensors").metadata["npnet.selection"])
    assert selection["scorers"] == ["hpsv2"]
    assert 0 < selection["kept"] < 40


def test_tensorboard_gets_the_same_figures(dataset, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(options(dataset, tmp_path / "run", tensorboard=True))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    rows = [row for row in read_history(tmp_path / "run" / "log.jsonl") if "train_mse" in row]
    logged = [(event.step, event.value) for event in events.Scalars("train_mse")]
    assert logged == [(row["step"], pytest.approx(row["train_mse"])) for row in rows]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_nan_names_the_sample_and_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    data, out = make_dataset(tmp_path / "pairs"), tmp_path / "run"
    settings = dict(epochs=20, batch=8, checkpoint_every=0.0)
    watch = stop_at(2, out / "log.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(options(data, out, **settings))
    watch.join()
    good = checkpoints(out / "checkpoints")[-1]
    before = good.read_bytes()

    reader = NPDReader(data)
    training, _ = hold_out(reader, range(len(reader)), 0.2, 0)
    poisoned = reader.records[training[0]].key.prompt
    (path,) = (data / "embeddings").rglob("*.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        metadata, embeds = file.metadata(), file.get_tensor("prompt_embeds").clone()
    embeds[int(poisoned.split()[1])] = float("nan")
    safetensors.torch.save_file({"prompt_embeds": embeds}, path, metadata)

    with pytest.raises(FloatingPointError) as error:
        run(options(data, out, **settings))
    assert f"prompt {poisoned!r}, seed " in str(error.value)
    assert "part w-0000" in str(error.value)
    latest = checkpoints(out / "checkpoints")[-1]
    assert str(latest) in str(error.value)
    assert all(value.isfinite().all() for value in torch.load(latest, weights_only=True)["npnet"].values())
    assert not (out / "npnet.safetensors").exists()
    if good.exists():
        assert good.read_bytes() == before


def test_a_learning_rate_that_explodes_is_said_to(dataset, tmp_path, capsys):
    save_config(options(dataset, tmp_path / "run", lr=1.0, epochs=20), tmp_path / "fit.toml")
    assert main(["fit", "--config", str(tmp_path / "fit.toml")]) == 1
    assert "lower --lr" in capsys.readouterr().err


def test_a_full_disk_keeps_what_was_there(dataset, tmp_path, capsys):
    """A limit on file size stands for the disk: the checkpoint no longer fits."""
    resource = pytest.importorskip("resource")
    config = tmp_path / "fit.toml"
    save_config(options(dataset, tmp_path / "run", checkpoint_every=0.0), config)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert main(["fit", "--config", str(config)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in capsys.readouterr().err
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert main(["fit", "--config", str(config)]) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"margin": (1.0,), "scorer": ("hpsv2",)}, "None of 40 pairs is kept by hpsv2 at margin 1.0"),
        ({"margin": (0.0, 0.1), "scorer": ("hpsv2",)}, "2 margins came for 1 scorers"),
        ({"scorer": ("hpsv2", "pickscore")}, "no score by 'pickscore': choose among hpsv2"),
        ({"scorer": None, "margin": (1.0,)}, "None of 40 pairs is kept by hpsv2 at margin 1.0"),
        ({"validation": 1.0}, "validation share of 1.0"),
        ({"limit": 0}, "limit of 0 pairs"),
        ({"batch": 0}, "--batch 0 came: give at least 1"),
        ({"lr": float("nan")}, "--lr nan came"),
        ({"lr": 1e4}, "--lr 10000.0 came: give at most 1"),
        ({"ema": 1.0}, "--ema 1.0 came"),
        ({"clip": 0.0}, "--clip 0.0 came"),
        ({"workers": 0}, "--workers 0 came"),
        ({"device": "warp"}, "no device warp"),
        ({"swin_heads": (3, 2)}, "heads"),
        ({"init": Path("x"), "swin_dim": None}, "--swin-size, .* came with --init"),
        ({"dataset": Path("nowhere")}, "nowhere is no noise prompt dataset"),
        ({"without": ("residual",), "swin_weights": Path("x")}, "no Swin"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(dataset, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        run(options(**{"dataset": dataset, "out": tmp_path / "run"} | changes))
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_run_is_refused(dataset, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".DS_Store").touch()  # is nobody's
    run(options(dataset, tmp_path / "run", epochs=1))
    with pytest.raises(InputError, match=r"holds another run \(lr 0.001 there and 0.002 here\)"):
        run(options(dataset, tmp_path / "run", epochs=1, lr=0.002))
    other = make_dataset(tmp_path / "other", prompts=10)
    with pytest.raises(InputError, match="holds a run with another dataset"):
        run(options(other, tmp_path / "run", epochs=1))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files and no run"):
        run(options(dataset, tmp_path / "files"))


def test_a_run_that_never_saved_makes_way(dataset, tmp_path):
    with pytest.raises(FloatingPointError):
        run(options(dataset, tmp_path / "run", lr=1.0, epochs=20))
    run(options(dataset, tmp_path / "run", epochs=1))
    assert [row["step"] for row in read_history(tmp_path / "run" / "log.jsonl")] == [1, 2, 2]


def test_a_damaged_checkpoint_is_named(dataset, tmp_path):
    run(options(dataset, tmp_path / "run", epochs=1))
    (path,) = checkpoints(tmp_path / "run" / "checkpoints")
    path.write_bytes(path.read_bytes()[:1000])
    (tmp_path / "run" / "npnet.safetensors").unlink()
    with pytest.raises(InputError, match=f"{path.name} is damaged"):
        run(options(dataset, tmp_path / "run", epochs=1))
    path.unlink()
    run(options(dataset, tmp_path / "run", epochs=1))


def test_damaged_parts_are_named_or_left_out(tmp_path):
    data = make_dataset(tmp_path / "pairs")
    part = data / "parts" / "w-000001.safetensors"
    content = bytearray(part.read_bytes())
    content[-100] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match=r"1 of 3 parts .* are damaged .*w-000001"):
        run(options(data, tmp_path / "run", epochs=1))
    run(options(data, tmp_path / "skipped", epochs=1, skip_corrupt=True))
    selection = json.loads(load_npnet(tmp_path / "skipped" / "npnet.safetensors").metadata["npnet.selection"])
    assert selection["kept"] == 24


def test_channels_that_make_no_square_are_refused(tmp_path):
    data = make_dataset(tmp_path / "pairs", prompts=4, channels=3)
    with pytest.raises(InputError, match="channels=3"):
        run(options(data, tmp_path / "run"))


def test_a_dataset_without_a_base_model_asks_for_one(tmp_path):
    data = make_dataset(tmp_path / "pairs", base="", prompts=4)
    with pytest.raises(InputError, match="name it with --base"):
        run(options(data, tmp_path / "run"))
    run(options(data, tmp_path / "run", base=BASE, epochs=1))


# -- small parts -------------------------------------------------------------------------------------------------------


def test_the_schedule_is_torch_s():
    steps, warmup = 40, 7
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [
        torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup),
    ]
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, schedulers, [warmup])
    for step in range(steps):
        assert lr_factor(step, steps, warmup, "cosine") == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert lr_factor(warmup, steps, warmup, "constant") == lr_factor(steps - 1, steps, 0, "constant") == 1


def test_a_log_that_was_cut_goes_on_after_the_checkpoint(tmp_path):
    rows = [{"step": step, "epoch": step / 2} for step in range(1, 6)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "ep')
    history = History(tmp_path, 3)
    history.add({"step": 4, "epoch": 9.0, "prompt_dependence": math.nan})
    assert read_history(tmp_path / "log.jsonl") == [*rows[:3], {"step": 4, "epoch": 9.0, "prompt_dependence": None}]


def test_the_average_is_an_exponential_moving_average():
    """Against the sum that it stands for, with the decays of the first steps."""
    torch.manual_seed(0)
    nets = [torch.nn.Linear(3, 2) for _ in range(30)]
    average = torch.nn.Linear(3, 2)
    expected = average.weight.detach().double()
    for step, net in enumerate(nets):
        update_average(average, net, 0.7, step)
        decay = 0.7 if step >= 20 else (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * net.weight.double()
    torch.testing.assert_close(average.weight.double(), expected.detach())
