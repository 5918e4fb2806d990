"""Where the network is refused and nothing can be unpickled, nothing is even tried.

The commands are run so in tests/test_readme.py, the nodes in tests/nodes/test_offline_nodes.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from npnet_core.checkpoint import save_npnet
from tests.offline import attempts, offline_environment, run_offline
from tests.seeded import small_net
from tests.tiny_pipelines import WORDS, tiny_sdxl


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base model and prompts."""
    folder = tmp_path_factory.mktemp("offline")
    tiny_sdxl(folder / "base")
    (folder / "prompts.txt").write_text("".join(f"{a} {b}\n" for a in WORDS[:2] for b in WORDS[3:5]))
    return folder


def test_published_files_and_pairs(folder, tmp_path):
    """PyTorch's own files, and the pairs of the released code."""
    torch.save({"state_dict": small_net().state_dict()}, tmp_path / "other.pth")
    refused = subprocess.run(
        [sys.executable, "-m", "trainer", "inspect", "other.pth"],
        cwd=tmp_path,
        env=offline_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert "is not an NPNet" in refused.stderr  # read, and found to be of another kind
    (tmp_path / "noises").mkdir()
    noise = np.random.RandomState(0).standard_normal((2, 1, 4, 16, 16)).astype(np.float16)
    np.savez(tmp_path / "noises" / "0_1.npz", *noise, np.array(0))
    line = {"index": 0, "seed": 1, "caption": "red", "original_score_list": [0.2], "optimized_score_list": [0.3]}
    (tmp_path / "captions.json").write_text(json.dumps(line))
    arguments = ["-m", "trainer", "convert", "--captions", "captions.json", "--base-model", str(folder / "base")]
    run_offline([*arguments, "noises", "released"], tmp_path, tmp_path)
    assert attempts(tmp_path) == []


def test_the_hub_is_not_asked_for_what_is_missing(folder, tmp_path):
    """A preference model and a vocabulary that are not on this machine."""
    arguments = ["-m", "trainer", "collect", "--base", str(folder / "base"), "--prompts", str(folder / "prompts.txt")]
    run = subprocess.run(
        [sys.executable, *arguments, "--out", "pairs", "--scorer", "pickscore"],
        cwd=tmp_path,
        env=offline_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "No weights of PickScore are on this machine" in run.stderr
    assert attempts(tmp_path) == []


def test_from_python(tmp_path):
    save_npnet(small_net(), tmp_path / "a.safetensors")
    script = (
        "import torch\n"
        "from npnet_core.checkpoint import load_npnet\n"
        "from npnet_core.golden import golden_noise\n"
        "golden_noise(load_npnet('a.safetensors'), torch.randn(1, 4, 9, 9), torch.randn(1, 7, 12))\n"
    )
    run_offline(["-c", script], tmp_path, tmp_path)
    assert attempts(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import socket; socket.create_connection(('192.0.2.1', 80))", "socket.getaddrinfo '192.0.2.1'"),
        ("import socket; socket.socket().connect(('192.0.2.1', 80))", "socket.connect ('192.0.2.1', 80)"),
        ("import urllib.request; urllib.request.urlopen('https://example.org')", "socket.getaddrinfo 'example.org'"),
        ("import pickle; pickle.loads(b'cos\\ngetcwd\\n.')", "pickle.find_class 'os.getcwd'"),
        (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', "
            "'import socket; socket.gethostbyname(\"example.org\")'], check=True)",
            "socket.gethostbyname 'example.org'",
        ),
        ("try:\n    import socket; socket.gethostbyname('example.org')\nexcept OSError:\n    pass", "example.org"),
    ],
)
def test_an_attempt_is_refused_and_seen(script, words, tmp_path):
    subprocess.run([sys.executable, "-c", script], env=offline_environment(tmp_path), capture_output=True)
    (attempt,) = attempts(tmp_path)
    assert words in attempt


def test_processes_on_one_machine_may_talk(tmp_path):
    script = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(('localhost', server.getsockname()[1]))\n"
    )
    run_offline(["-c", script], tmp_path, tmp_path)
    assert attempts(tmp_path) == []
