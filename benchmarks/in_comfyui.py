"""The section ``comfyui`` of ``benchmarks.gpu``: ``python -m benchmarks.in_comfyui COMFYUI DEVICE [--tiny]``.

A process of its own, in which ComfyUI's main.py is imported before torch is, as on a user's machine: that is when its
dynamic memory is switched on.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(comfyui: Path, base: Path, device: str) -> None:
    """Load ComfyUI with nothing but our pack, its files in ``base``."""
    import tests.nodes  # noqa: F401  ours, before ComfyUI's folder brings its own

    pack = base / "custom_nodes" / "npnet-golden-noise"
    pack.parent.mkdir()
    pack.symlink_to(ROOT, target_is_directory=True)
    sys.path.insert(0, str(comfyui))  # before our root, whose nodes/ must not hide ComfyUI's nodes.py
    folders = ["--base-directory", str(base), "--front-end-root", str(base)]  # no page is served: its package may lack
    sys.argv = ["main.py", *folders, *["--cpu"] * (device == "cpu")]
    import main  # noqa: F401
    import server

    import nodes

    loop = asyncio.new_event_loop()
    server.PromptServer(loop)
    if not loop.run_until_complete(nodes.load_custom_node(str(pack), module_parent="custom_nodes")):
        raise ImportError(f"ComfyUI in {comfyui} could not load the pack")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("device")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        for name in ("npnet", "preference"):
            (base / "models" / name).mkdir(parents=True)
        start(options.comfyui, base, options.device)
        from .evictions import measure

        measure(base, options.device, options.tiny)


if __name__ == "__main__":
    main()
