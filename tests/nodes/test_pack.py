"""The pack as the Comfy registry hands it out: what .comfyignore leaves is whole and loads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.comfyui import ROOT
from tests.nodes.test_start import SCRIPT

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no git repository"
)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The committed files without the ignored ones, in a folder as ComfyUI-Manager would make it."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z"]
    every, ignored = (
        set(subprocess.run([*git, *options], capture_output=True, text=True, check=True).stdout.split("\0")[:-1])
        for options in ([], ["--cached", "--ignored", "--exclude-from", str(ROOT / ".comfyignore")])
    )
    folder = tmp_path_factory.mktemp("custom_nodes") / "npnet-golden-noise"
    for name in every - ignored:
        if (ROOT / name).is_file():  # not deleted and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_what_is_left_out_and_what_is_not(published):
    names = {path.relative_to(published).parts[0] for path in published.rglob("*") if path.is_file()}
    assert not names & {"tests", "benchmarks", "docs", ".github", ".ci", "Makefile"}
    assert {
        "__init__.py",
        "nodes",
        "npnet_core",
        "trainer",
        "web",
        "locales",
        "example_workflows",
        "subgraphs",
    } <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "requirements.txt", "pyproject.toml", "icon.png"} <= names
    assert (
        len(list(published.glob("example_workflows/*.json")))
        == len(list(published.glob("example_workflows/*.jpg")))
        > 0
    )
    size = sum(path.stat().st_size for path in published.rglob("*") if path.is_file())
    assert size < 23e6  # of which the tiny worlds' weights may be 20 MB


def test_it_loads(published, comfy_base):
    command = [sys.executable, "-c", SCRIPT, str(comfy_base), str(published)]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    documented = {path.stem for path in published.glob("web/docs/*.md")}
    assert all(name in run.stdout for name in documented)


def test_what_comfyui_reads_of_it(published):
    from comfy_config import config_parser

    config = config_parser.extract_node_configuration(str(published))
    assert config.project.name == "npnet-golden-noise"  # immutable, and without "ComfyUI"
    assert config.tool_comfy.display_name == "NPNet Golden Noise"
    assert config.tool_comfy.publisher_id
    assert config.project.supported_comfyui_version == ">=0.3.64"
    assert config.project.supported_os == ["OS Independent"]
    assert config.project.urls.repository.startswith("https://")
    with Image.open(published / Path(config.tool_comfy.icon).name) as icon:
        assert icon.width == icon.height <= 400
