"""The shapes world where ComfyUI finds it: base model, net and detector, and a workflow that compares with them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from npnet_core.atomic_write import atomic_write
from npnet_core.errors import InputError
from trainer.shapes.worlds import World

log = logging.getLogger(__name__)

NAME = "npnet-shapes-world"
WORKFLOW = Path(__file__).parent / f"{NAME}.json"  # written by workflows/build.py


def check_comfyui(folder: Path) -> None:
    """Raise InputError unless a folder is ComfyUI's, or one that its ``--base-directory`` names."""
    if not (folder / "models").is_dir() or not (folder / "custom_nodes").is_dir():
        raise InputError(
            f"{folder} is no ComfyUI folder, which has the folders models and custom_nodes: name the one that you "
            "start ComfyUI in, or that --base-directory gives it."
        )


def install(world: World, npnet: Path, folder: Path) -> list[Path]:
    """Copy a world's models and the workflow into a ComfyUI folder; what was written there before is replaced, except
    a workflow that was changed.

    Args:
        npnet: the net's file.
        folder: as :func:`check_comfyui` wants it.

    Returns:
        what is there now: pipeline folder, net, detector, workflow.
    """
    base = folder / "models" / "diffusers" / NAME
    shutil.copytree(world.base, base, dirs_exist_ok=True)
    detector = f"{NAME}-detector-b.safetensors"
    files = {
        folder / "models" / "npnet" / f"{NAME}.safetensors": npnet,
        folder / "models" / "preference" / detector: world.detectors / "detector-b.safetensors",
    }
    for target, source in files.items():
        copy(source, target)
    workflow = folder / "user" / "default" / "workflows" / WORKFLOW.name
    if workflow.exists() and workflow.read_bytes() != WORKFLOW.read_bytes():
        log.warning("%s is left as it is, for it was changed: delete it and start again for a new one.", workflow)
    else:
        copy(WORKFLOW, workflow)
    return [base, *files, workflow]


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)
