"""The hpsv2 package itself beside ours: tokens, pixels, features, scores. Run by ``make test-hpsv2``.

The package pins old versions of others, so it has an environment of its own and this file is not collected elsewhere.
Its networks are built by its own factory at a small size, and scores come from its own procedure.

``python -m tests.hpsv2_live`` writes what `test_preference.py` compares with where the package is not installed:
`data/hpsv2_tokens.json`, its token ids, and `data/clip_words`, the part of CLIP's vocabulary that they need.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hpsv2.src.open_clip import tokenizer
from PIL import Image

from benchmarks import hpsv2_package
from npnet_core.preference import load_scorer
from npnet_core.preference.architecture import VIT_H
from npnet_core.preference.pixels import pad_to_square
from npnet_core.preference.tokens import open_clip_tokenizer

DATA = Path(__file__).parent / "data"
TINY = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 224, "layers": 3, "width": 160, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
}
SIZES = [(512, 512), (304, 208), (208, 304), (333, 127), (256, 255), (100, 60), (224, 224)]
PROMPTS = [
    "a red circle left of a blue square, highly detailed, 8k",
    "schÃ¶ne HÃ¤user, cafÃ© au lait",
    "salt &amp; pepper, 3 &lt; 5",
    "twice escaped: &amp;amp; &amp;quot;x&amp;quot;",
    "don’t “quote” me – it’s the artist's",
    "  UPPER case,\n new\tline   and   spaces ",
    "東京の夜、ネオン 🌃🌧️",
    "1024x1024 (masterpiece:1.2), f/1.8; [[x]] <lora:y>",
    "ﬁne ＦＵＬＬ width, naïve, Åre, e\u0301",
    "",
    "very " * 100 + "tall tower",
]


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> Path:
    """The package's vocabulary as vocab.json and merges.txt."""
    folder = tmp_path_factory.mktemp("words")
    hpsv2_package.write_words(folder, *hpsv2_package.words())
    return folder


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """(the package's network, its preprocessing, a checkpoint of it as published ones are)."""
    folder = tmp_path_factory.mktemp("package")
    network, preprocess = hpsv2_package.random_network(TINY, folder)
    checkpoint = folder / "HPS_v2_tiny.pt"
    torch.save({"state_dict": network.state_dict()}, checkpoint)
    return network, preprocess, checkpoint


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def test_tokens(words):
    ours = open_clip_tokenizer(words, VIT_H.text_cfg)
    assert torch.equal(ours(PROMPTS), tokenizer.tokenize(PROMPTS))


def test_tokens_of_random_texts(words):
    """Letters, signs and spaces of every script, 2000 texts; but for the one sign that folds to a letter (U+0345)."""
    rng = random.Random(0)
    letters = [chr(c) for c in range(32, 0x3000) if chr(c).isprintable() and c != 0x345]
    letters += list("aeiou   &;#'’“”😀漢字")
    texts = ["".join(rng.choices(letters, k=rng.randrange(30))) for _ in range(2000)]
    ours, theirs = open_clip_tokenizer(words, VIT_H.text_cfg)(texts), tokenizer.tokenize(texts)
    assert [text for text, a, b in zip(texts, ours, theirs, strict=True) if not torch.equal(a, b)] == []


def test_pixels(package, images):
    _, preprocess, _ = package
    for image in images:
        if max(image.size) != 224 or image.size[0] == image.size[1]:  # the package does not pad those
            np.testing.assert_allclose(pad_to_square(as_tensor(image), 224)[0], preprocess(image), atol=1e-6, rtol=0)


def test_features_and_scores(package, images, words):
    network, preprocess, checkpoint = package
    scorer = load_scorer("hpsv2", checkpoint, config=TINY, tokenizer=words)
    tokens = tokenizer.tokenize(PROMPTS[: len(images)])
    with torch.no_grad():
        theirs = network(torch.stack([preprocess(image) for image in images]), tokens)
        ours = scorer.model.image_features(torch.cat([pad_to_square(as_tensor(image), 224) for image in images]))
        np.testing.assert_allclose(ours, theirs["image_features"], atol=1e-6, rtol=0)
        np.testing.assert_allclose(scorer.model.text_features(tokens), theirs["text_features"], atol=1e-6, rtol=0)
    for image, prompt in zip(images, PROMPTS, strict=False):
        expected = hpsv2_package.score(network, preprocess, checkpoint, image, prompt)
        assert abs(scorer.score(as_tensor(image), [prompt]).item() - expected) < 1e-6


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))[None].float() / 255


def needed(prompts: list[str]) -> tuple[dict[str, int], list[str]]:
    """The part of the vocabulary that splits these prompts as all of it does: every merge that any step considers."""
    vocabulary, merges = hpsv2_package.words()
    ranks = {tuple(merge.split()): merge for merge in merges}
    considered, get_pairs = set(), tokenizer.get_pairs

    def noting(word):
        pairs = get_pairs(word)
        considered.update(ranks[pair] for pair in pairs if pair in ranks)
        return pairs

    tokenizer.get_pairs = noting
    tokenizer._tokenizer.cache.clear()
    tokenizer.tokenize(prompts)
    tokenizer.get_pairs = get_pairs
    merges = [merge for merge in merges if merge in considered]
    letters = [token for token, i in vocabulary.items() if i < 512]
    used = [*letters, *(merge.replace(" ", "") for merge in merges), "<|startoftext|>", "<|endoftext|>"]
    return {token: vocabulary[token] for token in used}, merges


def write_fixtures() -> None:
    reference = np.load(DATA / "hps_tiny.npz")
    prompts = PROMPTS + [str(prompt) for prompt in reference["prompts"]]
    ids = [[i for i in row if i] for row in tokenizer.tokenize(prompts).tolist()]
    rows = ",\n".join(json.dumps([prompt, row]) for prompt, row in zip(prompts, ids, strict=True))
    (DATA / "hpsv2_tokens.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    hpsv2_package.write_words(DATA / "clip_words", *needed(prompts))


if __name__ == "__main__":
    write_fixtures()
