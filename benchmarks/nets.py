"""Nets on the captions that are reported: ``python -m benchmarks.nets OUT NAME=FILE… [--seeds 16]``.

Each against standard noise, at the strong setting told a wrong prompt too, and against each other; beside them
re-denoising itself, that deep, by fixed points. OUT keeps the pictures: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from trainer.collecting.redenoising import REDENOISING
from trainer.evaluation.results import summarise
from trainer.shapes.pipeline_stages import two_settings
from trainer.shapes.tables import Table, compare_all, fits_table, render
from trainer.shapes.workers import in_parallel
from trainer.shapes.worlds import WORLDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("nets", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--base", choices=tuple(WORLDS), default="sd")
    parser.add_argument("--captions", type=int, default=128, help="of those that are reported")
    parser.add_argument("--seeds", type=int, default=16, help="for each caption")
    options = parser.parse_args()

    files = {name: Path(path) for name, _, path in (net.partition("=") for net in options.nets)}
    redenoising = dataclasses.replace(REDENOISING, inversion="fixed-point", depth=options.depth)
    world = WORLDS[options.base]()
    strong, weak = two_settings(world).values()
    tables = [
        Table("strong", files, [strong], ("inversion", "npnet", "wrong-prompt"), {"redenoising": redenoising}),
        Table("weak", files, [weak], more={"redenoising": redenoising}),
    ]
    scale = dataclasses.replace(world.full, reported_captions=options.captions, reported_seeds=options.seeds)
    what = world, tables, options.out, scale
    in_parallel(compare_all, *what)
    print(fits_table(files))
    for evaluation in compare_all(*what):
        results = summarise(evaluation.rows, evaluation.about)
        print("\n" + render(results["methods"], world.reports))
        print("\n| metric | noise | against | wins [95 %] | difference [95 %] |\n" + "|---" * 5 + "|")
        right = [{**row, "versus": "standard"} for row in results["methods"] if row["metric"] != world.reports]
        for row in [*results["pairs"], *right]:
            low, high = row["difference_low"], row["difference_high"]
            print(
                f"| {row['metric']} | {row['method']} | {row['versus']} "
                f"| {row['wins']:.3f} [{row['wins_low']:.3f}, {row['wins_high']:.3f}] "
                f"| {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}] |"
            )


if __name__ == "__main__":
    main()
