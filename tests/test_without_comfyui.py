"""Where there is no ComfyUI, its tests say so in one line and everything else goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_node_tests_are_skipped_with_one_line(tmp_path):
    pytest_run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/nodes"],
        cwd=ROOT,
        env={**os.environ, "COMFYUI_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    lines = [line for line in pytest_run.stdout.splitlines() if "SKIPPED" in line]
    modules = len(list((ROOT / "tests" / "comfy").glob("test_*.py")))
    assert len(lines) == 1, pytest_run.stdout
    assert f"[{modules}]" in lines[0]
    assert "set COMFYUI_PATH to a checkout" in lines[0]
    assert "error" not in pytest_run.stdout.lower()
