"""What a score costs: ``python -m benchmarks.score [--vit-h] [--runs 10]``, in the environment of ``make bench-score``.

A pair is one prompt with its source and target image of 1024x1024. HPSv2's package reloads its checkpoint for every
image and encodes the prompt with each; it is driven through its own factory, with random weights in an fp16 checkpoint
as published. A bare ``CLIPModel`` gets pixels and tokens that are ready. No prompt is remembered between pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from npnet_core.preference import Scorer, load_scorer
from npnet_core.preference.architecture import VIT_H
from npnet_core.preference.pixels import pad_to_square
from npnet_core.preference.tokens import open_clip_tokenizer

from . import hpsv2_package
from .sizes import REDUCED
from .timing import median_seconds, paired, row

PROMPT = "a red circle left of a blue square, highly detailed, 8k"


def compare(name: str, config: dict, folder: Path, runs: int) -> None:
    network, preprocess = hpsv2_package.random_network(config, folder)
    checkpoint, words = hpsv2_package.write_files(network, folder)

    def load(dtype: torch.dtype = torch.float32) -> Scorer:
        return load_scorer("hpsv2", checkpoint, config=config, tokenizer=words, dtype=dtype)

    row(f"{name}: loading", f"{median_seconds(load, 2):.1f} s")
    exact, half = load(), load(torch.bfloat16)
    noise = np.random.default_rng(0).integers(0, 256, (2, 1024, 1024, 3), np.uint8)
    images, pictures = torch.from_numpy(noise) / 255, [Image.fromarray(image) for image in noise]

    def ours(scorer: Scorer) -> torch.Tensor:
        scorer.text.known.clear()
        return scorer.score(images, [PROMPT] * 2)

    def package() -> torch.Tensor:
        scores = [hpsv2_package.score(network, preprocess, checkpoint, picture, PROMPT) for picture in pictures]
        return torch.tensor(scores)

    expected = package()
    row(f"{name}: scores of the pair", ", ".join(f"{score:.4f}" for score in expected))
    row(f"{name}: difference from the package's", f"{(ours(exact) - expected).abs().max():.1e}", "≤ 1e-6")
    row(f"{name}: difference in bf16", f"{(ours(half) - expected).abs().max():.1e}")
    for scorer, precision in ((half, "bf16"), (exact, "fp32")):
        a, b, ratio = paired(package, lambda scorer=scorer: ours(scorer), runs)
        row(f"{name}: pair, package / ours in {precision}", f"{a:.2f} / {b:.2f} s = {ratio:.1f}", "≥ 4")

    architecture, clip = exact.model.architecture, exact.model.clip
    pixels = pad_to_square(images, architecture.vision_cfg.image_size)
    tokens = open_clip_tokenizer(words, architecture.text_cfg)([PROMPT])
    a, b, ratio = paired(lambda: ours(exact), lambda: clip(input_ids=tokens, pixel_values=pixels), runs)
    row(f"{name}: pair, ours / bare CLIPModel", f"{a:.2f} / {b:.2f} s = {ratio:.2f}", "≤ 1.15")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vit-h", action="store_true", help="at the published size too: minutes and 12 GB of memory")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.runs} runs")
    sizes = {"reduced": REDUCED} | ({"ViT-H": VIT_H.to_dict()} if options.vit_h else {})
    for name, config in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            compare(name, config, Path(folder), options.runs)


if __name__ == "__main__":
    main()
