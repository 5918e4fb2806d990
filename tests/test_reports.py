"""Reports of tests are carried between processes whatever a test logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_half_a_surrogate_pair_is_carried(tmp_path):
    """As hostile file names have it: xdist cannot send it as it stands, and ends with an error of its own."""
    test = 'import logging\n\n\ndef test_log():\n    logging.getLogger("x").warning("a file name may hold \\ud800")\n'
    (tmp_path / "test_log.py").write_text(test)
    plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", *plugins, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout
