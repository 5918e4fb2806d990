"""Every benchmark can be started: what it imports is there, and it says what it measures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from npnet_core.architectures import ARCHITECTURES

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


def run_gpu(monkeypatch, capsys, *arguments: str) -> str:
    from benchmarks import gpu

    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    gpu.main()
    return capsys.readouterr().out


def test_the_gpus_sections_on_the_cpu(monkeypatch, capsys):
    """On one device everything agrees to the bit, and every net changes the noise, so that agreeing means something."""
    from benchmarks import gpu
    from npnet_core.golden import golden_noise

    printed = run_gpu(monkeypatch, capsys, "agreement", "cost", "--device", "cpu", "--tiny")
    assert printed.count("0.0e+00") == 2 * len(gpu.configs(True)) * len(gpu.TINY_SIZES)
    assert printed.count(" ms, ") == len(gpu.configs(True))
    assert {config.architecture for config in gpu.configs(False).values()} == set(ARCHITECTURES) - {"adapter"}
    for config in gpu.configs(True).values():
        noise, prompt = gpu.inputs(config, 16, 16)
        assert (golden_noise(gpu.random_net(config), noise, prompt) - noise).std() > 0.01


def test_the_gpus_section_in_comfyui(monkeypatch, capsys):
    from benchmarks import gpu
    from benchmarks.comfyui import find_comfyui

    if find_comfyui() is None:
        pytest.skip("ComfyUI not found: set COMFYUI_PATH")
    printed = run_gpu(monkeypatch, capsys, "comfyui", "--device", "cpu", "--tiny")
    assert "not measured" not in printed
    assert printed.count("0.0e+00") == 2 * (len(gpu.configs(True)) + 1)
    assert printed.count("loaded, evicted") == len(gpu.configs(True)) + 1


def test_the_gpus_section_in_the_trainer(monkeypatch, capsys):
    """Whatever is computed twice on the CPU is the same, and the nets were fitted."""
    from benchmarks import stages

    printed = run_gpu(monkeypatch, capsys, "trainer", "--device", "cpu", "--tiny")
    assert printed.count("0.0e+00") == 1 + len(stages.NETS) + 2
    assert printed.count("explained") == len(stages.NETS)


def test_what_is_missing_is_said_in_a_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert "set COMFYUI_PATH to a checkout" in run_gpu(monkeypatch, capsys, "comfyui", "--device", "cpu", "--tiny")
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "cli_args.py").touch()
    printed = run_gpu(monkeypatch, capsys, "comfyui", "--device", "cpu", "--tiny")
    assert printed.splitlines()[-1].endswith("No module named 'main'")
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="no CUDA card"):
            run_gpu(monkeypatch, capsys)
