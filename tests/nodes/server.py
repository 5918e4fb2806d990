"""ComfyUI's real server: main.py in a process of its own, over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.nodes.errors import NodeFailed, PromptRefused

START_SECONDS = 300


@dataclass(frozen=True)
class Server:
    url: str
    base: Path  # its base folder: models/, input/, output/, custom_nodes/
    log_file: Path
    processes: list[subprocess.Popen] = field(default_factory=list, repr=False)  # one, once it is started

    @property
    def pid(self) -> int:
        return self.processes[0].pid

    def get(self, path: str):
        """The JSON of a GET, for example `get("/object_info")`."""
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return json.load(response)

    def post(self, path: str, content) -> None:
        """POST some JSON, for example `post("/interrupt", {})`."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=json.dumps(content).encode(), headers=headers)
        urllib.request.urlopen(request, timeout=30).close()

    def post_prompt(self, prompt: dict, **extra) -> str:
        """Queue a graph in API format; its prompt id. Raises PromptRefused, also if only some outputs are refused."""
        body = json.dumps({"prompt": prompt, **extra}).encode()
        request = urllib.request.Request(self.url + "/prompt", data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 400:
                raise
            answer = json.load(refusal)
        if answer.get("error") or answer["node_errors"]:
            raise PromptRefused(answer.get("error"), answer["node_errors"])
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 120) -> dict:
        """The history entry of a finished graph: `outputs` by node id, `status`. Raises NodeFailed."""
        deadline = time.monotonic() + timeout
        while not (history := self.get(f"/history/{prompt_id}")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"prompt {prompt_id} is not done after {timeout} s")
            time.sleep(0.05)
        entry = history[prompt_id]
        for event, data in entry["status"]["messages"]:
            if event == "execution_error":
                raise NodeFailed(data)
        return entry

    def run(self, prompt: dict) -> dict:
        return self.wait(self.post_prompt(prompt))

    def images(self, entry: dict, node_id: str) -> torch.Tensor:
        """What a SaveImage of a history entry wrote: [B, H, W, 3] in 0..1."""
        files = [
            self.base / saved["type"] / saved["subfolder"] / saved["filename"]
            for saved in entry["outputs"][node_id]["images"]
        ]
        return torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files]) / 255

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def import_seconds(self, pack: str) -> float:
        """What the server's log says the loading of a pack took, to a tenth of a second."""
        loaded = re.search(rf"([\d.]+) seconds: .*\W{re.escape(pack)}\n", self.log())
        assert loaded, f"{pack} was not loaded:\n{self.log()}"
        return float(loaded[1])


@contextmanager
def serve(comfyui: Path, base: Path, arguments: list[str], environment: dict | None = None) -> Iterator[Server]:
    """Start main.py with `base` as its base folder, wait until it answers, stop it at the end."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"} if environment is None else environment
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(comfyui / "main.py"), "--base-directory", str(base), *arguments]
    command += ["--listen", "127.0.0.1", "--port", str(port)]
    command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
    server = Server(f"http://127.0.0.1:{port}", base, base / "server.log")
    with (
        server.log_file.open("w") as log,
        subprocess.Popen(command, cwd=base, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        server.processes.append(process)
        try:
            _wait_until_up(server, process)
            yield server
        finally:
            process.terminate()


def _wait_until_up(server: Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.get("/system_stats")
            return
        except urllib.error.URLError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ComfyUI's server did not come up:\n{server.log()}") from None
            time.sleep(0.1)
