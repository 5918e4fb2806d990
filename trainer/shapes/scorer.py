"""The preference models of the shapes world as its stages load them, from a folder with both detectors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_model
from torch import nn

from npnet_core.preference.shapes.detectors import DETECTORS
from npnet_core.preference.shapes.scorer import ShapesScorer
from trainer.shapes import WEIGHTS


def load_detector(name: str, folder: Path = WEIGHTS, device: str | torch.device = "cpu") -> nn.Module:
    """Detector ``a`` or ``b`` of a folder that :func:`trainer.shapes.train.retrain` wrote."""
    detector = DETECTORS[name]()
    load_model(detector, folder / f"detector-{name}.safetensors")
    return detector.to(device).eval()


def load_scorers(folder: Path = WEIGHTS, device: str | torch.device = "cpu") -> tuple[ShapesScorer, ...]:
    """B, which reports: ``shapes-b``, the log-likelihood of the caption's facts, and ``captions-right``, 1 if all of
    them hold; and A, which selects: ``shapes-a``, its log-likelihood.
    """
    a, b = (load_detector(name, folder, device) for name in ("a", "b"))
    return (
        ShapesScorer("shapes-b", b, "log_likelihood"),
        ShapesScorer("captions-right", b, "all_right"),
        ShapesScorer("shapes-a", a, "log_likelihood"),
    )
