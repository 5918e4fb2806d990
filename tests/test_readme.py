"""Every command in README.md: run as it stands where its files are there in small, or shown to exist where it cannot.

The folder in which they run has what the README presumes: a base model `sdxl-base`, a prompt file, an NPNet, HPSv2.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from npnet_core.checkpoint import save_npnet
from npnet_core.npd import Manifest, NPDWriter
from npnet_core.preference.files import CONFIG, KIND
from npnet_core.tensorfile import write_tensors
from tests.offline import attempts, run_offline
from tests.seeded import small_net
from tests.tiny_pipelines import WORDS, clip_vocabulary, tiny_sd, tiny_sdxl
from tests.tiny_scorers import HPS_CONFIG, hps_state
from trainer.commands.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

# Added to a command so that it ends in seconds.
SMALL_FIT = "--swin-size 16 --swin-dim 8 --swin-depths 1 --swin-heads 2 --swin-window 4 --epochs 2 --margin -1"
SMALL_REWARD = "--rank 4 --epochs 1 --height 64 --width 64"
SMALLER = {
    "fit": SMALL_FIT,
    "fit reward": SMALL_REWARD,
    "collect": "--seeds 0 1",
    "evaluate": "--limit 2 --steps 2",
    "sample": "--steps 2",
}
LONG = ("demo",)  # minutes: tests/trainer/shapes/test_demo.py
# One process for all, which imports torch once.
ALL = """
import json, sys
from trainer.commands.cli import main
if __name__ == "__main__":
    for line in json.loads(sys.argv[1]):
        try:
            code = main(line)
        except SystemExit as end:  # --help
            code = end.code
        if code:
            sys.exit(f"npnet {line} ended with {code}")
"""


def commands() -> list[list[str]]:
    """All commands as a shell splits them, without comments, continued lines joined."""
    blocks = "".join(text for language, text in BLOCKS if language in ("", "bash", "sh", "console"))
    lines = (shlex.split(line, comments=True) for line in blocks.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


def of(program: str) -> list[list[str]]:
    """The arguments of every command that is this program's."""
    return [arguments for name, *arguments in commands() if name == program]


def test_every_command_is_one_that_is_tested_here():
    assert {name for name, *_ in commands()} <= {"npnet", "make", "pip", "git", "cd"}
    assert {language for language, _ in BLOCKS} <= {"", "bash", "sh", "console", "python"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    tiny_sdxl(folder / "sdxl-base")
    tiny_sd(folder / "sd-turbo")
    (folder / "prompts.txt").write_text("".join(f"{a} {b}\n" for a in WORDS[:2] for b in WORDS[3:5]))
    npnet = folder / "models" / "npnet" / "sdxl.safetensors"
    npnet.parent.mkdir(parents=True)
    save_npnet(small_net(prompt_tokens=77, prompt_dim=2048), npnet)
    shutil.copy(npnet, folder / "sdxl.pth")  # a file is what its content says
    write_hpsv2(folder / "hpsv2" / "HPS_v2_compressed.pt")
    save_pairs(folder / "ComfyUI" / "output" / "npd" / "sdxl")
    return folder


def save_pairs(folder: Path) -> None:
    """What the template for collecting pairs leaves: scored by another HPS, of a base model that only has a name."""
    generator = torch.Generator().manual_seed(0)
    manifest = Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1, {"base_model": "sd_xl_base_1.0"})
    with NPDWriter(folder, manifest, worker="comfyui") as writer:
        for seed, prompt in enumerate(WORDS[:4]):
            source, target = torch.randn(2, 4, 16, 16, generator=generator)
            writer.add(source, target, prompt=prompt, seed=seed, scores={"hpsv2.1": (0.2, 0.3)})


def write_hpsv2(path: Path) -> None:
    """Where the hpsv2 package keeps its weights, with words enough for the base model's vocabulary."""
    path.parent.mkdir()
    words, sizes = len(clip_vocabulary()[0]), HPS_CONFIG["text_cfg"]
    state = hps_state()
    state["token_embedding.weight"] = torch.randn(words, sizes["width"], generator=torch.Generator().manual_seed(0))
    config = {**HPS_CONFIG, "text_cfg": {**sizes, "vocab_size": words}}
    write_tensors(path, state, {KIND: "hpsv2", CONFIG: json.dumps(config)})


def test_npnet(folder):
    """In the order of the page, for one makes what the next needs; without network, and nothing may be unpickled."""
    assert {name for name, *_ in of("npnet")} | {*LONG} == set(COMMANDS)
    lines = []
    for name, *arguments in of("npnet"):
        assert name in COMMANDS
        kind = f"{name} reward" if "reward" in arguments else name
        lines.append([name, "--help"] if name in LONG else [name, *arguments, *SMALLER.get(kind, "").split()])
    run_offline(["-c", ALL, json.dumps(lines)], folder, folder)
    assert attempts(folder) == []
    made = [line[-1] for line in of("npnet") if line[0] == "convert"]
    assert all((folder / name).is_file() for name in made)


@pytest.mark.parametrize("code", [text for language, text in BLOCKS if language == "python"])
def test_python(code, folder):
    given = {"prompt_embeds": "torch.randn(1, 77, 2048)"}
    lines = "".join(f"{name} = {value}\n" for name, value in given.items() if not re.search(rf"^{name} =", code, re.M))
    run_offline(["-c", f"import torch\n{lines}{code}"], folder, folder)
    assert attempts(folder) == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("arguments", of("make"), ids=" ".join)
def test_make(arguments):
    """Make knows the target and how to reach it; running it is another matter."""
    dry = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout


def test_installing(tmp_path):
    """What pip is told to install is there; fetching it is pip's."""
    requirements = [path for arguments in of("pip") for flag, path in pairwise(arguments) if flag == "-r"]
    assert {Path(path).name for path in requirements} == {"requirements.txt"}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()] == ["ftfy"]
    extras = {extra for arguments in of("pip") for extra in re.findall(r"\[(\w+)\]", " ".join(arguments))}
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = ", declared, re.MULTILINE) for extra in extras)


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no git repository")
def test_cloning(tmp_path):
    """The clone that the README asks for, of this repository, is a pack: into the folder that it names."""
    (clone,) = of("git")
    assert clone[0] == "clone"
    name = clone[-1]
    assert "." not in name  # ComfyUI serves no help pages from a folder with a dot
    (target,) = {path for path in of("cd") for path in path}
    assert target.endswith("custom_nodes")
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(tmp_path / name)], check=True, env=os.environ
    )
    assert {"__init__.py", "nodes", "npnet_core", "requirements.txt"} <= set(os.listdir(tmp_path / name))
