"""The shapes world of 0.1.0: two objects on grey, 528 captions, one detector. For the tables that were made in it."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
BASE = WEIGHTS / "base"
DETECTOR = WEIGHTS / "detector.safetensors"
