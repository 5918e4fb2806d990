"""What the fuzz tests found once: files made to do damage are refused with a sentence, each in its own way."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.config import NPNetConfig
from npnet_core.errors import LONGEST, InputError
from npnet_core.npd import Manifest, NPDReader, NPDWriter
from npnet_core.preference import load_scorer
from npnet_core.preference.architecture import Architecture
from npnet_core.tensorfile import read_tensors
from tests.seeded import SMALL, small_net
from tests.sentences import is_readable
from tests.tiny_scorers import CLIP_CONFIG, write_clip
from trainer.commands.cli import main
from trainer.data.embeddings import Embeddings, store_embeddings
from trainer.data.released import read_captions
from trainer.fitting.checkpoints import load_checkpoint, save_checkpoint


def test_a_message_shows_what_a_terminal_would_obey_and_ends():
    assert str(InputError("\x1b[2J: \u202e\ud800é🦊")) == "\\x1b[2J: \\u202e\\ud800é🦊"
    message = str(InputError("x: " + "a" * 10**6 + " get it again."))
    assert len(message) == LONGEST
    assert is_readable(message)


# ---- datasets --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path) -> Path:
    with NPDWriter(tmp_path / "pairs", Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1), worker="w") as writer:
        for seed in range(2):
            writer.add(*torch.randn(2, 4, 2, 2), prompt="a", seed=seed, scores={"hpsv2": (0.2, 0.3)})
    return tmp_path / "pairs"


def rewrite(dataset: Path, change) -> None:
    """Change the lines of the only part and make their checksum right again."""
    (sidecar,) = dataset.glob("parts/*.jsonl")
    lines = [json.loads(line) for line in sidecar.read_text().splitlines()[:-1]]
    changed = change(lines)
    lines = changed if isinstance(changed, list) else lines
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    sidecar.write_bytes(body + json.dumps({"crc32": zlib.crc32(body)}).encode())


def test_a_part_rewritten_as_it_was_is_read(dataset):
    rewrite(dataset, lambda lines: None)
    assert len(NPDReader(dataset, verify=True)) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1].update(seed=[1]),
        lambda lines: lines[1].update(prompt=1),
        lambda lines: lines[1].update(shape=[4, 2]),
        lambda lines: lines[1].update(shape=[4, 2, -2]),
        lambda lines: lines[1].update(shape=[4, 2**31, 2**31]),
        lambda lines: lines[1].update(offset=-8),
        lambda lines: lines[1].update(offset=10**9),
        lambda lines: lines[1].update(scores={"hpsv2": [0.1]}),
        lambda lines: lines[1].update(scores={"hpsv2": [0.1, float("nan")]}),
        lambda lines: lines[1].update(scores={"hpsv2": [0.1, 10**400]}),
        lambda lines: lines[1].update(extra=None),
        lambda lines: lines[1].pop("crc32"),
        lambda lines: lines[0].pop("version"),
        lambda lines: lines[0]["settings"].update(x=1),
        lambda lines: lines[0]["settings"].update(cfg="5"),
        lambda lines: lines[0]["settings"].update(sigmas=[1.0, float("inf")]),
        lambda lines: lines[:1],
        lambda lines: [1, *lines],
    ],
)
def test_lines_that_no_writer_makes_are_damage(dataset, change):
    rewrite(dataset, change)
    with pytest.raises(InputError, match=r"1 of 1 parts .* are damaged .*its .jsonl has lines of another form"):
        NPDReader(dataset)
    assert len(NPDReader(dataset, skip_corrupt=True)) == 0


def test_a_manifest_that_nests_without_end_is_damage(dataset):
    (dataset / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"manifest.json is damaged"):
        NPDReader(dataset)


# ---- files of tensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [torch.Tensor.to_sparse, lambda t: t.to("meta")])
def test_tensors_without_a_number_per_entry(tmp_path, make):
    torch.save({"a": make(torch.ones(3, 3))}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="has no tensor under a: choose a file of a model's weights"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "config",
    [
        {"swin_depths": (10**9,)},
        {"swin_depths": (9000,)},
        {"prompt_dim": 2**62},
        {"resolution": 10**6},
        {"swin_dim": "x"},
    ],
)
def test_a_config_that_no_machine_can_build(config):
    with pytest.raises(InputError, match="give"):
        NPNetConfig(**{**SMALL, "swin_heads": (1,), "swin_depths": (1,), **config})


def test_a_compressed_file_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert read_tensors(tmp_path / "a.pth")[0]["a"].shape == (1000,)
    with pytest.raises(InputError, match=r"b\.pth is damaged .*is compressed"):
        read_tensors(tmp_path / "b.pth")


def test_inspect_shows_what_a_terminal_would_obey(tmp_path, capsys):
    save_npnet(small_net(), tmp_path / "a.safetensors", {"npnet.x": "\x1b[2Jred", "a\x07": "b"})
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 0
    assert "\\x1b[2Jred" in (shown := capsys.readouterr().out)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert load_npnet(tmp_path / "a.safetensors").metadata["npnet.x"] == "\x1b[2Jred"


# ---- preference models -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory) -> dict[str, bytes]:
    folder = write_clip(tmp_path_factory.mktemp("clip"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"\xff", "has a config that cannot be read"),
        ("config.json", b"[1]", "has a config that is no object"),
        ("config.json", b'{"model_type": "clip", "vision_config": 1}', "is no config of a CLIP"),
        ("config.json", b'{"model_type": "clip", "vision_config": {"num_hidden_layers": 1000000000}}', "config"),
        ("merges.txt", b"#version: 0.2\na", "The vocabulary in .* cannot be read"),
        ("vocab.json", b"{}", "vocabulary"),
    ],
)
def test_a_folder_of_clip_with_a_bad_file(clip_files, tmp_path, name, content, words):
    for file, good in clip_files.items():
        (tmp_path / file).write_bytes(content if file == name else good)
    with pytest.raises(InputError, match=words):
        load_scorer("pickscore", tmp_path)


@pytest.mark.parametrize(
    ("tower", "size", "value"),
    [
        ("vision_cfg", "layers", 10**9),
        ("vision_cfg", "width", "64"),
        ("text_cfg", "heads", 0),
        ("text_cfg", "width", 63),
    ],
)
def test_sizes_that_make_no_network(tower, size, value):
    with pytest.raises(InputError, match="give a w"):
        Architecture.from_dict({**CLIP_CONFIG, tower: {**CLIP_CONFIG[tower], size: value}})


def test_half_a_character_in_a_prompt(clip_files, tmp_path):
    for file, good in clip_files.items():
        (tmp_path / file).write_bytes(good)
    scorer = load_scorer("pickscore", tmp_path)
    with pytest.raises(InputError, match="has half a character: write it anew"):
        scorer.score(torch.rand(1, 8, 8, 3), ["a \ud800"])


# ---- what the trainer keeps ------------------------------------------------------------------------------------------


def test_checkpoints_of_a_fit(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", 1, {"weights": torch.ones(1000), "step": 1}, keep=1)
    assert load_checkpoint(path)["step"] == 1
    good = path.read_bytes()
    middle = good.index(torch.ones(100).numpy().tobytes()) + 200
    for content in (b"", good[:500], good[:middle] + b"\1" + good[middle + 1 :]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is damaged .*: delete it"):
            load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(InputError, match=r"is damaged .it holds a list.: delete it"):
        load_checkpoint(path)


def test_embeddings_with_another_number_of_prompts(tmp_path):
    store_embeddings(tmp_path, "base", ["a", "b"], torch.randn(2, 3, 5))
    (path,) = tmp_path.rglob("*.safetensors")
    content = path.read_bytes()
    start = content.index(b'[\\"')
    path.write_bytes(
        content[:start]
        + b"[]"
        + b" " * (content.index(b"]", start) - start - 1)
        + content[content.index(b"]", start) + 1 :]
    )
    with pytest.raises(InputError, match=r"is damaged .*: delete it, its prompts are then encoded again"):
        Embeddings(tmp_path, "base")


def test_captions_with_numbers_that_are_none(tmp_path):
    row = {"index": float("inf"), "seed": 1, "caption": "a", "original_score_list": [], "optimized_score_list": []}
    (tmp_path / "captions").write_text(json.dumps(row))
    with pytest.raises(InputError, match="does not hold lines of JSON"):
        read_captions(tmp_path / "captions", ())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ema = 1" + "0" * 400, "more than a float can be: give less"),
        ("seed = " + "1" * 5000, "is not TOML"),
        ("seed = " + "[" * 100_000, "is not TOML"),
    ],
)
def test_numbers_and_lists_without_end_in_a_config_file(tmp_path, capsys, line, words):
    (tmp_path / "c.toml").write_text(line)
    assert main(["fit", "--dataset", "d", "--out", "o", "--config", str(tmp_path / "c.toml")]) == 2
    assert words in capsys.readouterr().err
