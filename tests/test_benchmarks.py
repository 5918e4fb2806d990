"""Every benchmark can be started: what it imports is there, and it says what it measures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text(encoding="utf-8"))


def test_they_are_found():
    assert {"apply", "architectures", "nets", "shapes", "workers"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_it_starts(name, monkeypatch, capsys):
    if "hpsv2_package" in (FOLDER / f"{name}.py").read_text(encoding="utf-8"):
        pytest.importorskip("hpsv2", reason="the package hpsv2 has an environment of its own")
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out
