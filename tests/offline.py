"""Run a program where the network is refused and nothing can be unpickled, and see whether it tried."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def offline_environment(folder: Path) -> dict[str, str]:
    """The environment of a process that is refused the network; attempts are written to ``folder/refused.log``.

    The hub's libraries are not told that they are offline, their caches are empty.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "HPS_"))}
    paths = [str(ROOT / "tests" / "refused"), str(ROOT)]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "REFUSED_LOG": str(folder / "refused.log"),
        "HF_HOME": str(folder / "empty-hub"),
        "HPS_ROOT": str(folder / "hpsv2"),
    }


def attempts(folder: Path) -> list[str]:
    """What was refused to the processes of ``offline_environment(folder)``."""
    log = folder / "refused.log"
    return log.read_text().splitlines() if log.exists() else []


def run_offline(arguments: Sequence[str], folder: Path, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python with these arguments; a failure shows its output."""
    run = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=offline_environment(folder), capture_output=True, text=True
    )
    assert run.returncode == 0, f"{arguments}\n{run.stdout}\n{run.stderr}"
    return run
