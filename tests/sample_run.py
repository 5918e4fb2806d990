"""A run of a comparison without its models: pictures of the first shapes world, and scores drawn by chance."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image

from trainer.shapes.first.world import SCENES, draw

METHODS = {  # name → (description, how much it adds to a log-likelihood)
    "standard": ("The seed's own noise.", 0.0),
    "inversion": ("The noise re-denoised on the image's own schedule.", 0.9),
    "npnet": ("Golden noise of the net npnet.", 0.7),
    "npnet-unselected": ("Golden noise of the net npnet-unselected.", 0.35),
    "wrong-prompt-npnet": ("Control: golden noise of the net npnet for another prompt of the set.", -1.4),
}
SETTINGS = {  # name → (facts, how much of that is left)
    "ddim-10-cfg1-32x32": (dict(sampler="ddim", steps=10, spacing=None, cfg=1.0, height=32, width=32), 1.0),
    "ddim-10-cfg5.5-32x32": (dict(sampler="ddim", steps=10, spacing=None, cfg=5.5, height=32, width=32), 0.25),
}
METRICS = {
    "shapes": {"factor": 1, "label": "caption log-likelihood"},
    "captions-right": {"factor": 1, "label": "captions right"},
}
NETS = {name: {"architecture": "npnet", "pairs": 1417} for name in ("npnet", "npnet-unselected")}
COST = [
    {
        "setting": setting,
        "method": method,
        "device": "cpu, float32",
        "batch": 50,
        "batches": 6,
        "predictions": 20.0 if method != "inversion" else 23.0,
        "seconds": 0.031 + noise,
    }
    | {"noise_seconds": noise, "sample_seconds": 0.029, "decode_seconds": 0.002, "peak_bytes": None}
    for setting in SETTINGS
    for method, noise in zip(METHODS, (0.0, 0.0042, 0.0009, 0.0009, 0.0009), strict=True)
]
ABOUT = {
    "command": "npnet demo --out demo --seed 0",
    "versions": {"npnet-golden-noise": "0.1.0", "torch": "2.14.0"},
    "base_model": "trainer/shapes/weights/base",
    "nets": NETS,
    "settings": {name: facts for name, (facts, _) in SETTINGS.items()},
    "methods": {name: description for name, (description, _) in METHODS.items()},
    "metrics": METRICS,
    "cost": COST,
    "diagnostics": {"npnet": {"prompt dependence": 0.64, "lag-1 correlation": -0.0011, "variance": 1.0042}},
    "missing": [],
}


def sample_run(
    out: Path, prompts: int, seeds: int = 1, size: tuple[int, int] = (32, 32), methods=tuple(METHODS)
) -> list[dict]:
    """Draw the pictures of all settings and methods into ``out`` and return the lines of scores.jsonl."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(SCENES), generator=generator)[:prompts].tolist()
    scenes = [(SCENES[i], seed) for i in order for seed in range(seeds)]
    rows = []
    for setting, (_, left) in SETTINGS.items():
        luck = 2.5 * torch.randn(len(scenes), generator=generator)
        for method in methods:
            mean = luck + left * METHODS[method][1] - 4.5
            likelihood = -torch.nn.functional.softplus(-mean - 2 * torch.randn(len(scenes), generator=generator))
            right = likelihood.exp() > 0.5 * torch.rand(len(scenes), generator=generator)
            drawn = [
                scene if ok else SCENES[(17 * i) % len(SCENES)]
                for i, ((scene, _), ok) in enumerate(zip(scenes, right, strict=True))
            ]
            images = (draw(drawn, generator, size).images * 255).round().to(torch.uint8).numpy()
            folder = out / "images" / setting / method
            folder.mkdir(parents=True, exist_ok=True)
            for (scene, seed), score, ok, image in zip(
                scenes, likelihood.tolist(), right.tolist(), images, strict=True
            ):
                path = folder / f"{scene.caption.replace(' ', '-')}-{seed}.png"
                Image.fromarray(image).save(path)
                for metric, value in (("shapes", score), ("captions-right", float(ok))):
                    assert math.isfinite(value)
                    rows.append(
                        {
                            "setting": setting,
                            "method": method,
                            "metric": metric,
                            "prompt": scene.caption,
                            "category": None,
                            "seed": seed,
                            "score": value,
                            "image": str(path.relative_to(out)),
                        }
                    )
    return rows
