"""The hpsv2 package without its downloads: a random network of its own factory, its own procedure, its vocabulary.

Needs the environment that ``make bench-score`` and ``make test-hpsv2`` make, because of the package's pins.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import torch
from hpsv2 import img_score
from hpsv2.src.open_clip import add_model_config, create_model_and_transforms, tokenizer
from PIL import Image


def random_network(config: dict, folder: Path):
    """(network in eval mode, preprocessing) as the package builds them for an open_clip config, seed 0."""
    (folder / "random-hps.json").write_text(json.dumps(config))
    add_model_config(folder / "random-hps.json")
    network, _, preprocess = create_model_and_transforms(
        "random-hps", None, precision="amp", light_augmentation=True, aug_cfg={}, output_dict=True
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:  # its own are so small that all features are alike
                weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias"):
                weight.normal_(std=0.02, generator=generator)
    return network.eval(), preprocess


def write_files(network, folder: Path) -> tuple[Path, Path]:
    """(fp16 checkpoint as published ones are, folder with the vocabulary) of a network, below ``folder``."""
    checkpoint, words_folder = folder / "HPS_v2_random.pt", folder / "words"
    torch.save({"state_dict": {key: value.half() for key, value in network.state_dict().items()}}, checkpoint)
    write_words(words_folder, *words())
    return checkpoint, words_folder


def score(network, preprocess, checkpoint: Path, image: Image.Image, prompt: str) -> float:
    """The package's procedure for one image: load the checkpoint, encode image and prompt, compare."""
    img_score.model_dict.update(model=network, preprocess_val=preprocess)
    return float(img_score.score(image, prompt, cp=str(checkpoint))[0])


def words() -> tuple[dict[str, int], list[str]]:
    """(vocabulary with transformers' names for both ends, merges) out of the package's one file."""
    with gzip.open(tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = dict(tokenizer._tokenizer.encoder)
    for ours, theirs in (("<|startoftext|>", "<start_of_text>"), ("<|endoftext|>", "<end_of_text>")):
        vocabulary[ours] = vocabulary.pop(theirs)
    return vocabulary, merges


def write_words(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    """As vocab.json and merges.txt."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
