"""Every benchmark can be started: what it imports is there, and it says what it measures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from npnet_core.adapter import Adapter
from npnet_core.architectures import ARCHITECTURES
from npnet_core.checkpoint import save_npnet
from npnet_core.errors import InputError
from trainer import bases
from trainer.shapes import WEIGHTS

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


def run_transfer(monkeypatch, capsys, net: Path, out: Path) -> list[list[str]]:
    """The rows of the tables."""
    from benchmarks import transfer

    few_step = ["transfer", str(net), str(WEIGHTS / "base"), "--out", str(out), "--teacher", "base", "--depth", "1"]
    monkeypatch.setattr(sys, "argv", [*few_step, "--captions", "2", "--seeds", "2"])
    transfer.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    return [row for row in rows if row[1:2] == ["B"]]


def test_an_adapter_on_a_distilled_model(monkeypatch, capsys, tmp_path):
    """A new one changes nothing, one of random weights does; the targets are beside both."""
    base = bases.load_base(WEIGHTS / "base")
    npnet = Adapter(bases.adapter_config(base, 4, bases.levels(base, bases.Schedule("ddim", 10))[0], 5.5, 8))
    redenoised = ["re-denoised", "re-denoised for another caption"]
    methods = ["golden", "made for another caption", *redenoised, "best of 2 by A"]
    for name, spread in (("new", 0.0), ("random", 0.1)):
        with torch.no_grad():
            for weight in npnet.parameters():
                weight.add_(spread * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        save_npnet(npnet, tmp_path / f"{name}.safetensors")
        rows = run_transfer(monkeypatch, capsys, tmp_path / f"{name}.safetensors", tmp_path)
        assert [row[0] for row in rows] == 2 * methods
        same = ["+0.00 [+0.00, +0.00]" in row and "+0.0 [+0.0, +0.0]" in row for row in rows]
        assert same == 2 * [name == "new", name == "new", False, False, False]
    assert len((tmp_path / "figures.jsonl").read_text().splitlines()) == 4


def test_another_models_adapter_is_refused(monkeypatch, capsys, tmp_path):
    base = bases.load_base(WEIGHTS / "flow")
    level = bases.levels(base, bases.Schedule("euler", 10))[0]
    save_npnet(Adapter(bases.adapter_config(base, 4, level, 5.5, 8)), tmp_path / "flow.safetensors")
    with pytest.raises(InputError, match="adapter of a z-image network"):
        run_transfer(monkeypatch, capsys, tmp_path / "flow.safetensors", tmp_path)
