"""The command line: options from dataclasses, exit codes, inspect and convert."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.config import NPNetConfig
from npnet_core.errors import InputError
from npnet_core.model import NPNet
from tests.seeded import small_net
from trainer.collecting.scorers import scorer_files
from trainer.commands.cli import COMMANDS, main
from trainer.commands.nets import name_npnets
from trainer.commands.options import argument, option, parse, required, save_config


@dataclass(frozen=True)
class Options:
    """A command.

    npnet try x --steps 4
    """

    source: Path = argument("what")
    steps: int = option(10, "how many")
    cfg: float = option(5.5, "how strongly, 100%")
    half: bool = option(False, "whether")
    kind: Literal["exact", "released"] = option("exact", "which")
    scorer: tuple[str, ...] = option((), "several")
    base: str | None = required("the model")


def test_flags_override_the_config_file_and_that_the_defaults(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('steps = 4\ncfg = 3\nbase = "sdxl"\nscorer = ["hpsv2", "aesthetic"]\n')
    options = parse(Options, "try", ["x", "--config", str(config), "--cfg", "2.5", "--half"])
    assert options == Options(Path("x"), 4, 2.5, True, "exact", ("hpsv2", "aesthetic"), "sdxl")


def test_the_resolved_config_reads_back(tmp_path):
    options = Options(Path("x"), 7, 1.5, True, "released", ('quo"te', "back\\slash"), "ü")
    save_config(options, tmp_path / "c.toml")
    assert parse(Options, "try", ["x", "--config", str(tmp_path / "c.toml")]) == options


@dataclass(frozen=True)
class Paths:
    """A command that reads files.

    npnet try --base ~/models
    """

    base: str = required("folder or hub id", path=True)
    out: Path = option(Path("out"), "folder")
    several: tuple[Path, ...] = option((), "files")
    prompt: str = option("", "no path")


def test_a_home_folder_is_meant_wherever_a_path_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "c.toml").write_text('base = "~/sdxl"\nseveral = ["~/a", "b~"]\nprompt = "~/ is home"\n')
    options = parse(Paths, "try", ["--config=~/c.toml", "--out=~/out"])
    assert options == Paths(f"{tmp_path}/sdxl", tmp_path / "out", (tmp_path / "a", Path("b~")), "~/ is home")
    assert parse(Paths, "try", ["--base", "stabilityai/sdxl"]).base == "stabilityai/sdxl"


@pytest.mark.parametrize(
    "lines", [r'base = "C:\new\tables"', 'base = "b"\nout = "C:\\temp"', 'base = "b"\nseveral = ["a", "C:\\bases"]']
)
def test_a_windows_path_in_double_quotes_is_none(tmp_path, lines):
    (tmp_path / "c.toml").write_text(lines)
    with pytest.raises(InputError, match=r"no path, it has a control character: .* in single quotes, or with /"):
        parse(Paths, "try", ["--config", str(tmp_path / "c.toml")])


def test_a_windows_path_that_toml_cannot_read_is_told_how(tmp_path):
    (tmp_path / "c.toml").write_text(r'base = "C:\Users\me\sdxl"')
    with pytest.raises(InputError, match=r"is not TOML .* Windows paths in single quotes or with /\."):
        parse(Paths, "try", ["--config", str(tmp_path / "c.toml")])
    (tmp_path / "c.toml").write_text(r"base = 'C:\Users\me\sdxl'")
    assert parse(Paths, "try", ["--config", str(tmp_path / "c.toml")]).base == r"C:\Users\me\sdxl"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_config_file_as_windows_saves_it(tmp_path, encoding):
    (tmp_path / "c.toml").write_bytes('base = "Füße"\r\nprompt = "a"\r\n'.encode(encoding))
    assert parse(Paths, "try", ["--config", str(tmp_path / "c.toml")]) == Paths("Füße", prompt="a")
    (tmp_path / "c.toml").write_bytes('base = "Füße"'.encode("cp1252"))
    with pytest.raises(InputError, match=r"The config file \S+ is not UTF-8 .* save it as UTF-8"):
        parse(Paths, "try", ["--config", str(tmp_path / "c.toml")])


def test_a_home_folder_is_meant_behind_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert name_npnets(["one=~/a.safetensors", "~/b.safetensors"]) == {
        "one": tmp_path / "a.safetensors",
        "b": tmp_path / "b.safetensors",
    }
    (tmp_path / "c=d.safetensors").touch()
    assert name_npnets(["~/c=d.safetensors"]) == {"c=d": tmp_path / "c=d.safetensors"}
    assert scorer_files(["hpsv2=~/hps.pt", "clipscore"]) == {"hpsv2": f"{tmp_path}/hps.pt", "clipscore": None}
    for named in (name_npnets, scorer_files):
        with pytest.raises(InputError, match="no path, it has a control character"):
            named(["hpsv2=C:\temp"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stesp = 4", "stesp.*did you mean steps"),
        ("nonsense_entirely = 4", "the options are source, steps"),
        ('steps = "4"', "steps = '4': give an int"),
        ("steps = true", "steps = True"),
        ('kind = "other"', "give one of exact, released"),
        ("steps = ", "is not TOML"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, line, words):
    (tmp_path / "c.toml").write_text(line)
    with pytest.raises(InputError, match=words):
        parse(Options, "try", ["x", "--base", "b", "--config", str(tmp_path / "c.toml")])


@pytest.mark.parametrize(
    "argv", [[], ["x"], ["x", "--base", "b", "--kind", "other"], ["x", "--base", "b", "--step", "1"]]
)
def test_wrong_flags_end_with_2(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(Options, "try", argv)
    assert "npnet try: error" in capsys.readouterr().err


def test_help_says_what_is_required(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    marked = [line for line in capsys.readouterr().out.splitlines() if "(required)" in line]
    assert len(marked) == 1  # --out


@pytest.mark.skipif(os.name != "posix", reason="Windows says it in another way")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # noticed at the end, and at the first line
def test_a_reader_who_has_seen_enough_is_no_failure(tmp_path, unbuffered):
    path = tmp_path / "net.safetensors"
    save_npnet(small_net(), path)
    command, root = [sys.executable, "-m", "trainer", "inspect", str(path)], Path(__file__).parents[3]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=root, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}, **how) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_begins_with_a_sentence_and_an_example(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    sentence, example = capsys.readouterr().out.split("\n\n")[1:3]
    assert sentence.strip().endswith(".")
    assert example.strip().startswith(f"npnet {command} ")


def small_npnet() -> NPNet:
    torch.manual_seed(0)
    config = NPNetConfig(
        resolution=8,
        prompt_tokens=3,
        prompt_dim=5,
        swin_size=16,
        swin_dim=8,
        swin_depths=(1,),
        swin_heads=(2,),
        swin_window=4,
    )
    npnet = NPNet(config)
    npnet.alpha.data.fill_(0.5)
    npnet.beta.data.fill_(0.25)
    return npnet.eval()


def test_inspect_prints_what_the_net_is(tmp_path, capsys):
    said = {"npnet.base_model": "my base", "npnet.reward": '{"scorers": {"mps": 1}, "denoising_steps": 2}'}
    save_npnet(small_npnet(), tmp_path / "net.safetensors", said | {"npnet.long": 4000 * "a"})
    assert main(["inspect", str(tmp_path / "net.safetensors")]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["npnet.base_model"] == "my base"
    assert rows["origin"] == "Trained on the scores of mps for images of my base in 2 steps."
    assert rows["npnet.long"] == 1000 * "a" + "… (4,000 characters)"
    assert rows["alpha"] == "0.245 (in the file: 0.5)"  # 2·sigmoid(0.5) − 1
    assert rows["beta"] == "0.25"
    total = sum(p.numel() for p in small_npnet().parameters())
    assert rows["parameters"].startswith(f"{total:,} (")


def test_convert_keeps_the_net_and_says_where_it_came_from(tmp_path):
    save_npnet(small_npnet(), tmp_path / "a.safetensors")
    assert main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), "--base-model", "m"]) == 0
    npnet = load_npnet(tmp_path / "b.safetensors")
    expected = small_npnet().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in npnet.state_dict().items())
    assert npnet.metadata["npnet.base_model"] == "m"
    assert npnet.metadata["npnet.provenance"].startswith("converted from a.safetensors, sha256 ")


def test_exit_codes(tmp_path, capsys):
    assert main(["nonsense"]) == 2
    assert main(["inspect", str(tmp_path / "missing")]) == 2
    error = capsys.readouterr().err
    assert "there is no command nonsense" in error
    assert "There is no file" in error
    assert "Traceback" not in error


def test_a_failing_disk_is_exit_1(tmp_path, capsys):
    save_npnet(small_npnet(), tmp_path / "a.safetensors")
    assert main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "no folder" / "b.safetensors")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_as_a_module():
    result = subprocess.run([sys.executable, "-m", "trainer", "--help"], capture_output=True, text=True, check=True)
    assert "npnet COMMAND" in result.stdout
