"""A hub of one's own: what load_base fetches, and that it fetches nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import diffusers
import pytest

from tests import tiny_pipelines
from trainer.bases import fingerprint, load_base

COMMIT = "b" * 40
LOAD = "from trainer.bases import fingerprint, load_base; print(fingerprint(load_base('owner/name')))"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as serves one repository; `server.root` holds its files, `server.sent` what was sent."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        root, path = self.server.root, self.path.partition("?")[0]
        names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
        if "/tree/" in path:
            files = [
                {"type": "file", "path": name, "size": (root / name).stat().st_size, "oid": name} for name in names
            ]
            self.send(json.dumps(files).encode(), "list")
        elif path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in names]
            self.send(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode(), "list")
        else:
            name = path.split("/", 5)[5]  # /owner/name/resolve/REVISION/NAME
            self.send((root / name).read_bytes() if name in names else None, name)

    def send(self, content, name):
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", hashlib.sha1(content).hexdigest())
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if content is not None and self.command == "GET":
            self.server.sent.append(name)
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root, server.sent = tmp_path / "repository", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def load(hub, home: Path) -> str:
    """The fingerprint of `owner/name`, in a process that knows this hub."""
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    settings |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", LOAD]
    run = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.strip()


def test_one_form_of_each_part_is_fetched_once(hub, tmp_path):
    folder = tiny_pipelines.tiny_sdxl(tmp_path / "folder")
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(folder)
    pipe.save_pretrained(hub.root)
    pipe.save_pretrained(hub.root, variant="fp16", max_shard_size="100KB")
    (hub.root / "vae/diffusion_pytorch_model.safetensors").unlink()  # in fp16 only
    (hub.root / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    assert load(hub, tmp_path / "home") == fingerprint(load_base(folder))
    weights = {name for name in hub.sent if name.endswith((".safetensors", ".bin"))}
    vae = {file.relative_to(hub.root).as_posix() for file in hub.root.glob("vae/*.fp16-*.safetensors")}
    plain = {f"{part}/model.safetensors" for part in ("text_encoder", "text_encoder_2")}
    assert weights == {"unet/diffusion_pytorch_model.safetensors"} | plain | vae
    hub.sent.clear()
    load(hub, tmp_path / "home")
    assert set(hub.sent) <= {"list"}


def test_a_chat_template_is_fetched_with_its_tokenizer(hub, tmp_path):
    folder = tiny_pipelines.tiny_z_image(hub.root)
    assert (folder / "tokenizer/chat_template.jinja").is_file()  # where transformers keeps it
    assert load(hub, tmp_path / "home") == fingerprint(load_base(folder))
    assert "tokenizer/chat_template.jinja" in hub.sent
