"""Nets on the captions that are reported: ``python -m benchmarks.nets OUT DATASET NAME=FILE… [--seeds 16]``.

Each against standard noise, told the right and a wrong prompt, and against each other, at the demo's two settings; and
re-denoising itself, that deep, by fixed points. DATASET is what they were fitted on. OUT keeps the pictures: the same
command goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.methods import Redenoising
from trainer.results import summarise
from trainer.shapes import WEIGHTS
from trainer.shapes.stages import RECIPE, Scale, compare, two_settings
from trainer.shapes.tables import about_fits, render
from trainer.shapes.workers import parallel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("nets", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=16, help="for each of the 128 captions")
    options = parser.parse_args()

    files = {name: Path(path) for name, _, path in (net.partition("=") for net in options.nets)}
    redenoising = Redenoising(RECIPE.cfg, RECIPE.inversion_cfg, inversion="fixed-point", depth=options.depth)
    what = WEIGHTS, files, list(two_settings().values()), options.out, Scale(0, 0, 128, options.seeds)
    with parallel() as in_parallel:
        in_parallel(compare, *what, redenoising=redenoising)
    evaluation = compare(*what, redenoising=redenoising)
    results = summarise(evaluation.rows, evaluation.about)

    print(about_fits(options.dataset, files), render(results["methods"]), sep="\n\n")
    print("\n| setting | metric | noise | against | wins [95 %] | difference [95 %] |\n" + "|---" * 6 + "|")
    right = [{**row, "versus": "standard"} for row in results["methods"] if row["metric"] == "captions-right"]
    for row in [*results["pairs"], *right]:
        low, high = row["difference_low"], row["difference_high"]
        print(
            f"| {row['setting']} | {row['metric']} | {row['method']} | {row['versus']} "
            f"| {row['wins']:.3f} [{row['wins_low']:.3f}, {row['wins_high']:.3f}] "
            f"| {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}] |"
        )


if __name__ == "__main__":
    main()
