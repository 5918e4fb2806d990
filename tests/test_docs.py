"""docs/, CONTRIBUTING.md and the README speak of files and names that exist; their Python runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from npnet_core.npd import Manifest, NPDWriter

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code() -> str:
    folders = ("npnet_core", "nodes", "trainer", "tests", "workflows", "benchmarks")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@each_page
def test_files_and_folders_exist(page):
    rooms = r"(?:npnet_core|nodes|trainer|tests|workflows|web|docs|locales|benchmarks)"
    named = set(re.findall(rf"`({rooms}/[\w/.-]*)", text(page)))
    named |= {link for link in re.findall(r"\]\(([^)#:]+)\)", text(page))}
    missing = [name for name in named if not any((folder / name).exists() for folder in (ROOT, page.parent))]
    assert not [name for name in missing if not list(ROOT.glob(name + "*"))], missing


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_names_exist(page):
    """`names_like_this`, `NamesLikeThis` and `name(…)` in running text are in the code."""
    prose = re.sub(r"^```.*?^```|^    .*?$", "", text(page), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(_?[A-Za-z]+(?:_\w+)+|[A-Z]+[a-z]+[A-Z]\w+|[A-Z]{4,})(?:\(.*?\))?`", prose))
    known = code()
    assert not {name for name in named if not re.search(rf"\b{re.escape(name)}\b", known)}


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in text(page)], ids=lambda page: page.name)
def test_python_runs(page, tmp_path):
    if page.name == "README.md":  # tests/test_readme.py
        return
    manifest = Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1)
    with NPDWriter(tmp_path / "pairs", manifest, worker="w") as writer:
        for seed in range(2):
            writer.add(*torch.zeros(2, 4, 4, 4), prompt="a", seed=seed, scores={"hpsv2": (0.2, 0.3)})
    script = "\n".join(re.findall(r"^```python\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL))
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
