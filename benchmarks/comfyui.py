"""The ComfyUI that benchmarks run in: at $COMFYUI_PATH, else at ~/ComfyUI, else around this clone."""

from __future__ import annotations

import os
from pathlib import Path

MISSING = "set COMFYUI_PATH to a checkout"


def find_comfyui() -> Path | None:
    named = os.environ.get("COMFYUI_PATH")
    for folder in [Path(named)] if named else [Path.home() / "ComfyUI", Path(__file__).resolve().parents[3]]:
        if (folder / "comfy" / "cli_args.py").is_file():
            return folder
    return None
