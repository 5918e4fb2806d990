"""The real ComfyUI as a test bed. A node test looks like this:

    def test_golden_noise(call, pack):                     # one node, Python values in and out
        noise, = call("NPNetNoise", npnet=…, noise=…, conditioning=conditioning("sdxl"), …)
        assert isinstance(noise, pack.nodes.golden.GoldenNoise)

    def test_in_a_graph(run_graph):                        # API format, validated and executed by ComfyUI
        result = run_graph({"1": {"class_type": "TinyTestModel", "inputs": {"seed": 0}}, …})
        image, = result.values["8"]                        # [B, H, W, 3]
        with pytest.raises(NodeFailed, match="…"): …       # or PromptRefused, both of tests.nodes.errors

    def test_served(server): …                             # main.py in a process of its own, see server.py

- Inputs: `conditioning` of tests.nodes.conditionings; `tiny_sdxl`, `tiny_hunyuan_dit`, `tiny_vae` of
  tests.nodes.tiny_pack.models; `tiny_sdxl_clip`, `tiny_hunyuan_clip` of tests.nodes.tiny_pack.text.
  In graphs the nodes `TinyTestModel` and `TinyTestHunyuanDiT` stand where CheckpointLoaderSimple would.
- `comfy_base` is ComfyUI's base folder, `server.base` the server's: put weights into `… / "models" / "npnet"`;
  `save_tiny_npnet(pack, base)` of tests.nodes.npnets does, and gives the name for NPNetLoad.
- Under ComfyUI our modules belong to the pack's package. Reach them through `pack` (`pack.npnet_core.golden`):
  an absolute `import npnet_core` here would make a second copy of every class.
- `import nodes`, `import comfy…` give ComfyUI's modules: its folder stands first on `sys.path`.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.comfyui import COMFYUI, COMFYUI_ARGS, NOT_FOUND, PACK, make_base


class NoComfyUI(pytest.Module):
    """A file of tests that cannot be imported: what it would run, as far as its text tells, is skipped."""

    def collect(self):
        for statement in ast.parse(self.path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test_"):
                yield NotRun.from_parent(self, name=statement.name)


class NotRun(pytest.Item):
    def runtest(self):
        pytest.skip(NOT_FOUND)


def pytest_pycollect_makemodule(module_path, parent):
    if COMFYUI is None:
        return NoComfyUI.from_parent(parent, path=module_path)
    return None


def configure(base: Path) -> None:
    """Put ComfyUI on `sys.path` and give it its arguments, which it reads once, at its first import."""
    sys.path.insert(0, str(COMFYUI))  # before our root, whose nodes/ must not hide ComfyUI's nodes.py
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["main.py", "--base-directory", str(base), *COMFYUI_ARGS])
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
        import utils.extra_config  # noqa: F401  before nodes.py, which puts comfy/utils.py in its way


BASE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    if COMFYUI is not None:
        config.stash[BASE] = make_base(config)
        configure(config.stash[BASE])


@pytest.fixture(scope="session")
def comfy_base(pytestconfig) -> Path:
    """The base folder of the ComfyUI in this process: models/, input/, output/, custom_nodes/."""
    return pytestconfig.stash[BASE]


@pytest.fixture(scope="session")
def packs(comfy_base) -> dict:
    from tests.nodes.graphs import boot

    return boot(sorted((comfy_base / "custom_nodes").iterdir()))


@pytest.fixture(scope="session")
def pack(packs):
    """Our modules as ComfyUI has loaded them: `pack.npnet_core.golden`, `pack.nodes`."""
    return packs[PACK]


@pytest.fixture(scope="session")
def run_graph(packs):
    """`run_graph(prompt) -> Result`, see graphs.run_graph."""
    from tests.nodes import graphs

    return graphs.run_graph


@pytest.fixture
def executor(packs):
    """An executor to give to several `run_graph` calls that share ComfyUI's cache."""
    from tests.nodes.interfaces import new_executor

    return new_executor()


@pytest.fixture(scope="session")
def call(packs):
    """`call("NodeId", input=…) -> outputs`, see graphs.call."""
    from tests.nodes import graphs

    return graphs.call


@pytest.fixture(scope="session")
def server(pytestconfig):
    """A running ComfyUI with both packs: `get`, `post_prompt`, `wait`, `run`, `images`, `log`, see server.Server."""
    from tests.nodes.server import serve

    with serve(COMFYUI, make_base(pytestconfig), COMFYUI_ARGS) as running:
        yield running
