"""Where ComfyUI is, and a base folder for it.

It is looked for at `$COMFYUI_PATH`, else at `~/ComfyUI`, else around the clone (in `custom_nodes/`).
`$COMFYUI_ARGS` replaces `--cpu`, for example by `--novram` on a machine with a GPU, or adds to it:
`--cpu --front-end-root <folder>` serves another frontend.
`$DYNAMIC_MEMORY=1` switches ComfyUI's dynamic memory on, also without a GPU.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_FOUND = "ComfyUI not found: set COMFYUI_PATH to a checkout (>= 0.3.64) and install its requirements"
PACK = "npnet-golden-noise"


def find_comfyui() -> Path | None:
    named = os.environ.get("COMFYUI_PATH")
    for folder in [Path(named)] if named else [Path.home() / "ComfyUI", ROOT.parent.parent]:
        if (folder / "comfy" / "cli_args.py").is_file():
            return folder.resolve()
    return None


COMFYUI = find_comfyui()
COMFYUI_ARGS = [*os.environ.get("COMFYUI_ARGS", "--cpu").split(), "--use-pytorch-cross-attention"]


def make_base(config: pytest.Config) -> Path:
    """A temporary base folder for ComfyUI whose custom_nodes are this repository and the tiny pack."""
    temporary = tempfile.TemporaryDirectory(prefix="npnet-comfyui-")
    config.add_cleanup(temporary.cleanup)
    base = Path(temporary.name).resolve()
    for name in ("custom_nodes", "models/npnet", "models/preference", "input", "output", "user"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
    (base / "custom_nodes" / "tiny_pack").symlink_to(ROOT / "tests/nodes/tiny_pack", target_is_directory=True)
    return base
