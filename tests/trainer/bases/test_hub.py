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
LOAD = """
import sys
from trainer.bases import fingerprint, load_base
for name in sys.stdin:
    print(fingerprint(load_base(name.strip())), flush=True)
"""


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
            self.send(json.dumps({"id": "owner/any", "sha": COMMIT, "siblings": siblings}).encode(), "list")
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


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root, server.sent = None, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def load(hub, tmp_path_factory):
    """The fingerprint of a repository, from a process that knows this hub; one for all, which imports torch once."""
    home = tmp_path_factory.mktemp("home")
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    settings |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", LOAD],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):

        def load(name: str) -> str:
            print(name, file=process.stdin, flush=True)
            said = process.stdout.readline().strip()
            assert said, (home / "log").read_text()[-2000:]
            return said

        yield load
        process.stdin.close()


def serve(hub, root: Path) -> None:
    hub.root = root
    hub.sent.clear()


def test_one_form_of_each_part_is_fetched_once(hub, load, tmp_path):
    folder = tiny_pipelines.tiny_sdxl(tmp_path / "folder")
    serve(hub, tmp_path / "repository")
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(folder)
    pipe.save_pretrained(hub.root)
    pipe.save_pretrained(hub.root, variant="fp16", max_shard_size="100KB")
    (hub.root / "vae/diffusion_pytorch_model.safetensors").unlink()  # in fp16 only
    (hub.root / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    assert load("owner/sdxl") == fingerprint(load_base(folder))
    weights = {name for name in hub.sent if name.endswith((".safetensors", ".bin"))}
    vae = {file.relative_to(hub.root).as_posix() for file in hub.root.glob("vae/*.fp16-*.safetensors")}
    plain = {f"{part}/model.safetensors" for part in ("text_encoder", "text_encoder_2")}
    assert weights == {"unet/diffusion_pytorch_model.safetensors"} | plain | vae
    hub.sent.clear()
    load("owner/sdxl")
    assert set(hub.sent) <= {"list"}


def test_a_chat_template_is_fetched_with_its_tokenizer(hub, load, tmp_path):
    folder = tiny_pipelines.tiny_z_image(tmp_path / "repository")
    serve(hub, folder)
    assert (folder / "tokenizer/chat_template.jinja").is_file()  # where transformers keeps it
    assert load("owner/z-image") == fingerprint(load_base(folder))
    assert "tokenizer/chat_template.jinja" in hub.sent
