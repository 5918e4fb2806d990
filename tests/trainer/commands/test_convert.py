"""Published files → ours, and what inspect says of them: dispatch, pairs in the released format, datasets."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

from npnet_core.errors import InputError
from npnet_core.npd import NPDReader, merge
from npnet_core.preference import read_scorer
from npnet_core.redenoising import redenoise
from npnet_core.summary import dataset_overlap, render, render_overlap, summarise
from tests import tiny_pipelines
from tests.tiny_scorers import write_clip
from trainer import bases
from trainer.commands.cli import main
from trainer.data.file_kind import file_kind
from trainer.data.released import read_captions

PROMPTS = ["a red circle", "a blue circle, left of a green square", 'the "one"']
SEEDS = [7, 1024, 7]
SCORES = [(0.25, 0.26), (0.27, 0.21), (0.25, 0.25)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny_pipelines.tiny_sd(root / "sd")
    return root


def write_line(index: int, /, **changes) -> str:
    """As json.dump writes it there."""
    row = {"index": index, "seed": SEEDS[index], "caption": PROMPTS[index]}
    row |= {"original_score_list": [SCORES[index][0]], "optimized_score_list": [SCORES[index][1]]}
    return json.dumps(row | changes) + "\n"


def write_pair(folder, index: int, name: str | None = None, prompt: str = "", base=None) -> tuple:
    """As ``np.savez(f"{index}_{seed}.npz", source, target, index)`` writes it there."""
    source = torch.randn(1, 4, 16, 16, generator=torch.manual_seed(SEEDS[index]), dtype=torch.float16)
    target = source + 0.1
    if base is not None:
        denoise = bases.denoiser(base, bases.encode(base, [prompt]))
        levels = bases.levels(base, bases.Schedule("ddim", 10))
        target = redenoise(denoise, source.float(), levels, inversion="released").target.half()
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / (name or f"{index}_{SEEDS[index]}.npz"), source.numpy(), target.numpy(), index)
    return source[0], target[0]


@pytest.fixture
def pairs(tmp_path):
    """Three pairs in two folders, as several GPUs leave them, and their lines in a .json."""
    written = [write_pair(tmp_path / "pairs" / f"gpu{index % 2}", index) for index in range(3)]
    (tmp_path / "training.json").write_text("".join(map(write_line, range(3))))
    return written


def convert(models, folder, *more) -> int:
    argv = ["convert", folder / "pairs", folder / "set", "--captions", folder / "training.json"]
    return main([*map(str, argv), "--base-model", str(models / "sd"), *more])


def test_released_pairs_become_a_dataset(models, tmp_path, pairs, capsys):
    assert convert(models, tmp_path) == 0
    assert "3 pairs written, 0 there already, 0 left out" in capsys.readouterr().out
    reader = NPDReader(tmp_path / "set", verify=True)
    assert len(reader) == 3
    for record, (source, target) in zip(reader.records, reader, strict=True):
        index = PROMPTS.index(record.key.prompt)
        assert record.key.seed == SEEDS[index]
        assert record.scores == {"hpsv2.1": SCORES[index]}
        assert torch.equal(source, pairs[index][0])
        assert torch.equal(target, pairs[index][1])
    settings = reader.manifest
    assert (settings.base_family, settings.cfg, settings.inversion_cfg) == ("sd", 5.5, 1.0)
    assert (settings.inversion, settings.rounds) == ("released", 1)
    assert convert(models, tmp_path) == 0  # again, as after a kill
    assert "0 pairs written, 3 there already" in capsys.readouterr().out


def test_imported_and_collected_pairs_are_one_dataset(models, tmp_path):
    """Pairs made by the released formula are what collect makes with it, and both merge."""
    base = bases.load_base(models / "sd")
    for index in range(2):
        write_pair(tmp_path / "pairs", index, prompt=PROMPTS[index], base=base)
    (tmp_path / "training.json").write_text("".join(map(write_line, range(2))))
    assert convert(models, tmp_path) == 0
    imported = NPDReader(tmp_path / "set")
    for record, (source, target) in zip(imported.records, imported, strict=True):
        (tmp_path / "prompt.txt").write_text(record.key.prompt)
        argv = ["collect", "--base", models / "sd", "--prompts", tmp_path / "prompt.txt", "--inversion", "released"]
        argv += ["--out", tmp_path / "collected", "--scorer", "none", "--seeds", *[record.key.seed] * 2]
        assert main(list(map(str, argv))) == 0
        collected = NPDReader(tmp_path / "collected")
        ours = [row.key for row in collected.records].index(record.key)
        assert torch.equal(collected[ours][0], source)
        torch.testing.assert_close(collected[ours][1], target, rtol=0, atol=4e-3)  # fp16 sources, there
    assert merge([tmp_path / "set", tmp_path / "collected"], tmp_path / "all") == 3


def test_what_cannot_be_used_is_counted(models, tmp_path, pairs, capsys, caplog):
    folder = tmp_path / "pairs" / "gpu0"
    cut = (folder / "0_7.npz").read_bytes()
    (folder / "0_7.npz").write_bytes(cut[:-300])
    (folder / "flipped_7.npz").write_bytes(bytes([*cut[:500], cut[500] ^ 1, *cut[501:]]))
    np.savez(folder / "9_9.npz", np.full((1, 4, 16, 16), np.nan, np.float16), np.zeros((1, 4, 16, 16)), 2)
    np.savez(folder / "8_8.npz", np.zeros((1, 4, 16, 16)), np.zeros((1, 4, 8, 8)), 2)
    np.savez(folder / "7_7.npz", np.zeros((1, 4, 16, 16)))
    (folder / "6_6.npz").touch()
    write_pair(folder, 2, "12_7.npz")  # another one's index: the same pair twice
    write_pair(folder, 1, "1_5.npz")  # another seed than its line's
    with caplog.at_level(logging.WARNING):
        assert convert(models, tmp_path) == 0
    assert "2 pairs written, 1 there already, 7 left out" in capsys.readouterr().out
    assert "6 pairs are left out because they cannot be read: 0_7.npz" in caplog.text
    assert "1 pairs are left out because they have no line of their own: 1_5.npz" in caplog.text
    assert len(NPDReader(tmp_path / "set")) == 2


def test_names_that_begin_with_a_dot_are_others(models, tmp_path, pairs, capsys):
    for path in (tmp_path / "pairs" / "gpu0" / "._0_7.npz", tmp_path / "pairs" / ".Trash-1000" / "9_9.npz"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x00\x05\x16\x07")
    assert convert(models, tmp_path) == 0
    assert "3 pairs written, 0 there already, 0 left out" in capsys.readouterr().out


def test_files_without_a_seed_in_their_name(models, tmp_path):
    write_pair(tmp_path / "pairs", 1, "1.npz")
    write_pair(tmp_path / "pairs", 2, "2.npz")
    lines = [write_line(1), write_line(1), write_line(2), write_line(2, caption="two prompts for one index")]
    (tmp_path / "training.json").write_text("".join(lines))
    assert convert(models, tmp_path) == 0
    assert [record.key.prompt for record in NPDReader(tmp_path / "set").records] == [PROMPTS[1]]


def test_scores_that_say_nothing_are_left_out(tmp_path, caplog):
    """The released HPSv2 wrapper gives 1.0 to every single image."""
    lines = [write_line(i, original_score_list=[1.0, i], optimized_score_list=[1.0, i + 1]) for i in range(3)]
    (tmp_path / "a.json").write_text("".join(lines))
    with caplog.at_level(logging.WARNING):
        read = read_captions(tmp_path / "a.json", ["hpsv2.1", "aesthetic"])
    assert [line.scores for line in read] == [{"aesthetic": (i, i + 1)} for i in range(3)]
    assert "every score by hpsv2.1 is 1" in caplog.text
    assert [line.scores for line in read_captions(tmp_path / "a.json", [])] == [{}] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{'index': 1}\n", "does not hold lines of JSON"),
        ('{"index": 1}\n', "does not hold lines of JSON with index, seed, caption"),
        (write_line(0, original_score_list=[0.1, 0.2]), "does not hold lines of JSON"),
        (write_line(0) + "\n" + '{"index": 1}\n', r"\(line 3: 'original_score_list'\)"),
        (write_line(0, original_score_list=[1, 2], optimized_score_list=[1, 2]), "has 2 scores per image and 1 were"),
    ],
)
def test_wrong_lines(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_captions(tmp_path / "a.json", ["hpsv2.1"])


def test_wrong_use(models, tmp_path, pairs, capsys):
    assert main(["convert", str(tmp_path / "pairs"), str(tmp_path / "set")]) == 2
    assert "(--captions)" in capsys.readouterr().err
    assert convert(models, tmp_path, "--captions", "nowhere") == 2
    assert "There is no file nowhere" in capsys.readouterr().err
    (tmp_path / "training.json").write_text(write_line(0, index=99))
    assert convert(models, tmp_path) == 2
    assert "None of the 3 pairs" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "pairs")]) == 2
    assert "npnet convert" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) == 2
    assert "is no dataset" in capsys.readouterr().err


def test_preference_models_are_recognised(tmp_path, capsys):
    write_clip(tmp_path / "clip")
    weights = tmp_path / "clip" / "model.safetensors"
    assert file_kind(tmp_path / "clip") == file_kind(weights) == "preference model"
    target = tmp_path / "converted.safetensors"
    assert main(["convert", str(tmp_path / "clip"), str(target), "--kind", "pickscore"]) == 0
    assert read_scorer(target).kind == "pickscore"
    assert file_kind(target) == "preference model"
    assert main(["convert", str(tmp_path / "clip"), str(target), "--kind", "taste"]) == 2
    assert "choose one of" in capsys.readouterr().err
    assert main(["inspect", str(target)]) == 0
    assert "PickScore (pickscore)" in capsys.readouterr().out
    assert main(["inspect", str(weights)]) == 2
    assert "choose its kind" in capsys.readouterr().err
    assert main(["inspect", str(weights), "--kind", "clipscore"]) == 0
    assert "(clipscore)" in capsys.readouterr().out


def test_inspect_shows_a_dataset(models, tmp_path, pairs, capsys):
    assert convert(models, tmp_path) == 0
    reader = NPDReader(tmp_path / "set")
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "set")]) == 0
    assert capsys.readouterr().out == render(summarise(reader)) + "\n"
    assert main(["inspect", str(tmp_path / "set"), "--svd"]) == 0
    overlap = render_overlap(*dataset_overlap(reader))
    assert capsys.readouterr().out == f"{render(summarise(reader))}\n\n{overlap}\n"
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "x")]) == 2
    assert "is a dataset of ours already" in capsys.readouterr().err


def test_inspect_names_damaged_parts(models, tmp_path, pairs, capsys, caplog):
    assert convert(models, tmp_path) == 0
    part = next((tmp_path / "set" / "parts").glob("*.safetensors"))
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert main(["inspect", str(tmp_path / "set"), "--skip-corrupt"]) == 0
    assert f"1 of 1 parts of the dataset {tmp_path / 'set'} are damaged ({part.stem}" in caplog.text
    assert "pairs       0" in capsys.readouterr().out
