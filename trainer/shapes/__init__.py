"""The shapes world: captioned pictures, a tiny text-to-image model and a preference model, shipped with the package.

Small enough to measure on two CPU cores what golden noise does. To everything else it is one more base model, loaded
from the folder :data:`BASE`, and one more preference model, loaded with :func:`trainer.shapes.scorer.load_scorers`.

The demo runs in it: others use its stages (``pipeline_stages``), ``page``, ``tables`` and, to make the weights anew,
``train`` and ``assess``.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
BASE = WEIGHTS / "base"  # an ordinary diffusers pipeline folder
DETECTOR = WEIGHTS / "detector.safetensors"
