"""The demo's processes: what becomes of them, and of their work, when one of them or the first one is stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from npnet_core.errors import InputError
from trainer.shapes.workers import WORKERS, in_parallel

ROOT = Path(__file__).resolve().parents[3]
posix = pytest.mark.skipif(os.name != "posix", reason="elsewhere processes end at once, without a last word")


@pytest.fixture(autouse=True)
def found_by_children(monkeypatch):
    """ComfyUI has a package ``tests`` too, and as that has an ``__init__.py`` it would be found before ours."""
    paths = [path for path in sys.path if not Path(path, "tests", "__init__.py").exists()]
    monkeypatch.setattr(sys, "path", [str(ROOT), *paths])


def note(folder: Path, worker: tuple[int, int]) -> None:
    Path(folder, f"{worker[0]}of{worker[1]}").write_text(str(os.getpid()), encoding="utf-8")


def wait_long(folder: Path, worker: tuple[int, int]) -> None:
    note(folder, worker)
    try:
        time.sleep(300)
    finally:
        Path(folder, f"finished-{worker[0]}").touch()


def second_is_killed(folder: Path, worker: tuple[int, int]) -> None:
    if worker[0] == 1:
        until(lambda: Path(folder, f"0of{WORKERS}").exists())
        os.kill(os.getpid(), signal.SIGKILL)
    wait_long(folder, worker)


def first_refuses(folder: Path, worker: tuple[int, int]) -> None:
    if worker[0] == 0:
        until(lambda: Path(folder, f"1of{WORKERS}").exists())
        raise InputError("No such folder came: give another.")
    wait_long(folder, worker)


def until(condition, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_process_has_its_part(tmp_path):
    in_parallel(note, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{i}of{WORKERS}" for i in range(WORKERS)}


@posix
def test_a_killed_process_is_reported_and_stops_the_other(tmp_path):
    with pytest.raises(ChildProcessError, match="was killed"):
        in_parallel(second_is_killed, tmp_path)
    assert (tmp_path / "finished-0").exists()
    assert multiprocessing.active_children() == []


def test_a_process_that_fails_says_why_and_stops_the_other(tmp_path, capfd):
    with pytest.raises(ChildProcessError, match="has said why"):
        in_parallel(first_refuses, tmp_path)
    assert "No such folder came: give another." in capfd.readouterr().err
    assert multiprocessing.active_children() == []


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_they_end_with_the_first_one_and_finish_what_they_have(tmp_path, number):
    script = (
        "import signal, sys\n"
        "from tests.trainer.shapes.test_workers import in_parallel, wait_long\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.default_int_handler)\n"
        "in_parallel(wait_long, sys.argv[1])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as first:
        notes = [tmp_path / f"{i}of{WORKERS}" for i in range(WORKERS)]
        until(lambda: all(path.exists() and path.read_text(encoding="utf-8") for path in notes))
        first.send_signal(number)
        errors = first.communicate()[1]
        until(lambda: not any(alive(int(path.read_text(encoding="utf-8"))) for path in notes))
    assert first.returncode == -signal.SIGINT
    assert all((tmp_path / f"finished-{i}").exists() for i in range(WORKERS))
    assert "Process Spawn" not in errors
