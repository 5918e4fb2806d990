"""npnet demo at a scale of seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from trainer.commands import demo
from trainer.shapes import tables, workers
from trainer.shapes.worlds import WORLDS, Scale

SCALE = Scale(captions=60, seeds=1, reported_captions=4, reported_seeds=2)


def run(out: Path, scale: Scale = SCALE, *, steps: int = 10, processes: bool = False, **options) -> Path:
    """The demo at that scale and, like all tests, on one thread: that is what is changed about it.

    Args:
        steps: of sampling, ten as people have it for what compares costs.
        processes: each worker's part in a process of its own, as people run it; a process imports torch, so otherwise
            it is one part after the other.
    """
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "THREADS", 1)
        if not processes:
            for module in (workers, tables):
                patch.setattr(module, "in_parallel", one_after_the_other)
        for name, world in WORLDS.items():
            patch.setitem(WORLDS, name, partial(at_scale, world, scale, steps))
        demo.run(demo.Options(out=out, **options))
    torch.set_num_threads(threads)
    return out


def one_after_the_other(work, *args, **kwargs) -> None:
    for i in range(workers.WORKERS):
        work(*args, worker=(i, workers.WORKERS), **kwargs)


def at_scale(make, scale: Scale, steps: int, *weights: Path):
    made = make(*weights)
    depth = min(made.recipe.depth, steps - 2)
    recipe = replace(made.recipe, schedule=replace(made.recipe.schedule, steps=steps), depth=depth)
    return replace(made, quick=scale, full=scale, recipe=recipe)


def figures(folder: Path) -> dict:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {name: results[name] for name in ("methods", "pairs", "standard", "items")}
