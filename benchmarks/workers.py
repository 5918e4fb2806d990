"""What the demo's two processes gain over one of two threads: ``python -m benchmarks.workers [--captions 60]``.

Both make the same pairs with their pictures, five seeds for each caption, and both compare the same noises, standard
and re-denoised, three seeds for each of half as many captions, at both settings. Starting the processes is part of
their time. The scores of the comparison are thrown away unread.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.timing import row, seconds
from trainer.shapes.pipeline_stages import collect_pairs, compare, two_settings
from trainer.shapes.workers import WORKERS, in_parallel
from trainer.shapes.worlds import WORLDS, Scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=60)
    parser.add_argument("--base", choices=tuple(WORLDS), default="sd")
    options = parser.parse_args()

    torch.set_num_threads(WORKERS)
    scale = Scale(options.captions, 5, options.captions // 2, 3)
    world = WORLDS[options.base]()
    settings = list(two_settings(world).values())
    compared = len(settings) * scale.reported_captions * scale.reported_seeds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measure(
            f"collecting {scale.captions * scale.seeds} pairs",
            lambda: collect_pairs(world, folder / "pairs-one", scale),
            lambda: in_parallel(collect_pairs, world, folder / "pairs-several", scale),
        )
        what = {"methods": ("standard", "inversion")}
        measure(
            f"comparing {compared} pairs of pictures",
            lambda: compare(world, {}, settings, folder / "one", scale, **what),
            lambda: in_parallel(compare, world, {}, settings, folder / "several", scale, **what),
        )


def measure(what: str, one: Callable[[], object], several: Callable[[], object]) -> None:
    first, second = seconds(one), seconds(several)
    row(what, f"{first:.1f} s, in {WORKERS} processes {second:.1f} s, gain {first / second:.2f}")


if __name__ == "__main__":
    main()
