"""The shapes world: captioned pictures, tiny text-to-image models and detectors that judge, shipped with the package.

Small enough to measure on two CPU cores what golden noise does. To everything else its models are base models, loaded
from the folders :data:`BASE` (a Stable Diffusion) and :data:`FLOW` (a Z-Image), and its detectors preference models,
loaded with :func:`trainer.shapes.scorer.load_scorers`. ``first/`` is the smaller world of 0.1.0, for the tables that
were made in it.

The demo runs in it: others use its stages (``pipeline_stages``) in one of its ``worlds``, ``page``, ``tables`` and, to
make the weights anew, ``train`` and ``assess``.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
BASE = WEIGHTS / "base"  # ordinary diffusers pipeline folders
FLOW = WEIGHTS / "flow"
