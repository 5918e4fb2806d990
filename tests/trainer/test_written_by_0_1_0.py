"""What version 0.1.0 wrote goes on with today's code: a dataset, a finished and an unfinished fit, an evaluation.

`data/written_by_0.1.0` was made by that version's code with the commands below, in a folder that also held the first
shapes world's base model as `base` and the preference model of `hpsv2`: `COLLECT --limit 4`, FINISHED, STOPPED (which
got SIGTERM after its fifth step) and `EVALUATE --limit 3`. Pages and curves were left out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from npnet_core.npd import NPDReader, merge
from npnet_core.preference.files import CONFIG, KIND
from npnet_core.tensorfile import write_tensors
from tests.seeded import DATA, seeded_tensor
from tests.tiny_scorers import HPS_CONFIG, hps_state
from trainer.commands.cli import main
from trainer.shapes.first import BASE

SCORER = "--scorer hpsv2=hps.safetensors"
COLLECT = f"collect --base base --prompts prompts.txt --out pairs {SCORER} --steps 2 --height 16 --width 16"
COLLECT += " --device cpu"
FIT = "fit --dataset pairs --scorer none --validation 0.4 --batch 2 --lr 0.01 --log-every 1 --checkpoint-every 0"
FIT += " --keep 1 --device cpu"
FINISHED = f"{FIT} --without svd residual --epochs 5 --out finished"
SWIN = "--swin-size 8 --swin-dim 4 --swin-depths 1 --swin-heads 1 --swin-window 2"
STOPPED = f"{FIT} --without svd {SWIN} --ema 0.9 --drop-path 0.5 --epochs 30 --out stopped"
EVALUATE = f"evaluate --base base --npnet finished/npnet.safetensors --prompts prompts.txt --out evaluation {SCORER}"
EVALUATE += " --methods standard npnet wrong-prompt --steps 2 --size 16x16 --dataset pairs --device cpu"
WORDS = 101  # of the base model's vocabulary


@pytest.fixture(scope="module")
def hpsv2(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hpsv2") / "hps.safetensors"
    sizes = HPS_CONFIG["text_cfg"]
    state = hps_state()
    state["token_embedding.weight"] = seeded_tensor("token_embedding.weight", (WORDS, sizes["width"]), 0)
    config = {**HPS_CONFIG, "text_cfg": {**sizes, "vocab_size": WORDS}}
    write_tensors(path, state, {KIND: "hpsv2", CONFIG: json.dumps(config)})
    data = path.read_bytes()  # safetensors writes metadata in any order, and an evaluation knows the file by its bytes
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[start:])
    return path


@pytest.fixture
def folder(tmp_path, hpsv2, monkeypatch) -> Path:
    """Where version 0.1.0 was at work."""
    shutil.copytree(DATA / "written_by_0.1.0", tmp_path, dirs_exist_ok=True)
    shutil.copytree(BASE, tmp_path / "base")
    shutil.copy(hpsv2, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def npnet(command: str) -> None:
    assert main(command.split()) == 0


def contents(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def pairs(reader: NPDReader) -> dict[tuple, tuple[torch.Tensor, dict]]:
    """Key → (source and target noise, scores)."""
    return {record.key: (torch.stack(reader[i]), record.scores) for i, record in enumerate(reader.records)}


def metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_a_dataset_is_read_and_collected_further(folder):
    before, earlier = contents(folder / "pairs" / "parts"), pairs(NPDReader(folder / "pairs", verify=True))
    assert len(earlier) == 4
    npnet(COLLECT)
    now = pairs(NPDReader(folder / "pairs", verify=True))
    assert len(now) == 6
    assert before.items() <= contents(folder / "pairs" / "parts").items()
    for key, (noises, scores) in earlier.items():
        assert torch.equal(now[key][0], noises)
        assert now[key][1] == scores


def test_the_same_pairs_are_collected_today(folder):
    earlier = pairs(NPDReader(folder / "pairs"))
    shutil.rmtree(folder / "pairs")
    npnet(f"{COLLECT} --limit 4")
    now = pairs(NPDReader(folder / "pairs"))
    assert now.keys() == earlier.keys()
    for key, (noises, scores) in earlier.items():
        torch.testing.assert_close(now[key][0], noises, atol=2e-3, rtol=2e-3)  # fp16
        assert now[key][1]["hpsv2"] == pytest.approx(scores["hpsv2"], abs=1e-3)


def test_a_dataset_is_merged_with_one_of_today(folder):
    npnet(COLLECT.replace("--out pairs", "--out more --seeds 2000 3000"))
    assert merge([folder / "pairs", folder / "more"], folder / "merged") == 2
    assert merge([folder / "pairs", folder / "more"], folder / "merged") == 0
    earlier, merged = pairs(NPDReader(folder / "pairs")), NPDReader(folder / "merged", verify=True)
    assert len(merged) == 4 + 6
    assert merged.duplicates == 0
    assert earlier.keys() <= pairs(merged).keys()


def test_a_finished_fit_is_finished(folder, caplog):
    caplog.set_level("INFO")
    before = contents(folder / "finished", folder / "pairs")
    npnet(FINISHED)
    assert "npnet.safetensors is finished" in caplog.messages[-1]
    assert contents(folder / "finished", folder / "pairs") == before


def test_a_finished_fit_tells_its_dataset(folder):
    told = json.loads(metadata(folder / "finished" / "npnet.safetensors")["npnet.dataset"])
    assert told["sha256"] == NPDReader(folder / "pairs").hash


def test_a_stopped_fit_goes_on(folder, caplog):
    """From its checkpoint to the weights of a run that was never stopped, as near as processors agree: the checkpoint's
    five steps ran on another one than the whole run's, and Adam enlarges last bits (2.2e-4 seen between two).
    """
    caplog.set_level("INFO")
    npnet(STOPPED)
    assert "Going on after step 5 of 30." in caplog.messages
    npnet(STOPPED.replace("--out stopped", "--out whole"))
    weights, whole = (safetensors.torch.load_file(folder / out / "npnet.safetensors") for out in ("stopped", "whole"))
    assert weights.keys() == whole.keys()
    for key, expected in whole.items():
        torch.testing.assert_close(weights[key], expected, atol=1e-3, rtol=1e-3)
    steps = [json.loads(line)["step"] for line in (folder / "stopped" / "log.jsonl").read_text().splitlines()]
    assert [step for step in dict.fromkeys(steps)] == list(range(1, 31))


def test_an_evaluation_says_what_it_said(folder):
    """Nothing is made or scored again, and every figure is what that version found."""
    scores = (folder / "evaluation" / "scores.jsonl").read_bytes()
    images = contents(folder / "evaluation" / "images")
    expected = json.loads((folder / "evaluation" / "results.json").read_text(encoding="utf-8"))
    npnet(f"{EVALUATE} --limit 3")
    assert contents(folder / "evaluation" / "images") == images
    assert (folder / "evaluation" / "scores.jsonl").read_bytes() == scores
    results = json.loads((folder / "evaluation" / "results.json").read_text(encoding="utf-8"))
    for name in ("n", "prompts", "binary", "families", "standard", "items"):
        assert results[name] == expected[name]
    assert len(results["methods"]) == len(expected["methods"]) == 2
    for row, row_then in zip(results["methods"], expected["methods"], strict=True):
        assert row.keys() == row_then.keys()
        for name, value in row_then.items():
            assert row[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12))
    for name in ("settings", "methods", "metrics", "base_model", "nets"):
        assert results["about"][name] == expected["about"][name]


def test_an_evaluation_grows(folder):
    images = contents(folder / "evaluation" / "images")
    npnet(EVALUATE)
    now = contents(folder / "evaluation" / "images")
    assert images.items() <= now.items()
    assert len(now) == 3 * 6 + 3  # among six prompts the first three have other controls than among three
    results = json.loads((folder / "evaluation" / "results.json").read_text(encoding="utf-8"))
    assert (results["n"], results["prompts"]) == (6, 6)
