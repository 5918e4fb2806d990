"""How good the models of the shapes world are: ``python -m benchmarks.world [--count 1500] [--device cuda]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.distributed import find_device
from trainer.shapes import WEIGHTS
from trainer.shapes.assess import assess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="pictures per row")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder that npnet demo --retrain made")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(assess(options.weights, options.count, device=find_device(options.device)))


if __name__ == "__main__":
    main()
