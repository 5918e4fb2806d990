"""The ComfyUI that benchmarks run in: a checkout at $COMFYUI_PATH, by default ~/ComfyUI."""

from __future__ import annotations

import os
from pathlib import Path

MISSING = "set COMFYUI_PATH to a checkout"


def find_comfyui() -> Path | None:
    folder = Path(os.environ.get("COMFYUI_PATH", Path.home() / "ComfyUI"))
    return folder if (folder / "comfy" / "cli_args.py").is_file() else None
