"""Where there is no ComfyUI, the last line says how many tests were not run, and everything else goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("options", [["-q", "-rs"], ["-n", "2"]], ids=["one process", "two"])
def test_node_tests_are_skipped_and_counted_in_the_last_line(tmp_path, options):
    pytest_run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "tests/nodes"],
        cwd=ROOT,
        env={**os.environ, "COMFYUI_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert pytest_run.returncode == 0, pytest_run.stdout
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "nodes").glob("test_*.py")]
    count = sum(len(re.findall(r"^def test_", text, re.MULTILINE)) for text in texts)
    lines = pytest_run.stdout.splitlines()
    assert lines[-1].startswith(f"{count} node tests not run. ComfyUI not found: set COMFYUI_PATH to a checkout")
    assert sum("SKIPPED" in line for line in lines) == 1
    assert "error" not in pytest_run.stdout.lower()


def test_nothing_is_said_where_no_node_test_was_wanted(tmp_path):
    pytest_run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_docs.py"],
        cwd=ROOT,
        env={**os.environ, "COMFYUI_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "node tests" not in pytest_run.stdout
