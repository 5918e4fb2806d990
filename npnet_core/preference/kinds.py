"""The preference models that we know: what was published, and how it scores."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import layouts
from .aesthetic import AestheticScorer
from .architecture import BLIP_L, VIT_H, VIT_L, Architecture, Text
from .clip import CosineScorer, clip_score, cosine, scaled_cosine
from .image_reward import ImageRewardScorer
from .layouts import Layout
from .mps import MPSScorer
from .pixels import crop_to_square, pad_to_square
from .scorer import Scorer
from .shapes.scorer import ShapesScorer
from .tokens import Tokenizer, bert_tokenizer, clip_tokenizer, open_clip_tokenizer

CLIP_L = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class Vocabulary:
    """Words for prompts: any of these sets of files; these repositories on the hub have one."""

    title: str
    files: tuple[tuple[str, ...], ...]
    repositories: tuple[str, ...]


CLIP_WORDS = Vocabulary(
    "CLIP's vocabulary (vocab.json and merges.txt)",
    (("vocab.json", "merges.txt"), ("tokenizer.json",)),
    (CLIP_L, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
)
BERT_WORDS = Vocabulary(
    "BERT's vocabulary (the vocab.txt of bert-base-uncased)",
    (("vocab.txt",),),
    ("bert-base-uncased", "google-bert/bert-base-uncased"),
)


@dataclass(frozen=True)
class Kind:
    """A preference model.

    Attributes:
        title: as papers write it.
        layout: how its published file is written.
        architecture: of its published file; None for a network of one size.
        scorer: (kind, network[, tokenizer]) → the scorer.
        file: the name of its published file; None for a transformers folder.
        repository: on the hub, where that is.
        downloads: where its authors' package keeps it outside the hub's cache.
        name: a pattern in the name of its file or folder, the only thing that tells kinds of one layout apart.
        vocabulary, tokenizer: for its prompts; None if it reads none.
    """

    title: str
    layout: Layout
    architecture: Architecture | None
    scorer: Callable[..., Scorer]
    file: str | None = None
    repository: str | None = None
    downloads: Callable[[], Path] | None = None
    name: str | None = None
    vocabulary: Vocabulary | None = None
    tokenizer: Callable[[Path, Text], Tokenizer] | None = None


HPSV2 = Kind(
    "HPSv2",
    layouts.OPEN_CLIP,
    VIT_H,
    partial(CosineScorer, pixels=pad_to_square, formula=cosine),
    file="HPS_v2_compressed.pt",
    repository="xswu/HPSv2",
    downloads=lambda: Path(os.environ.get("HPS_ROOT", "~/.cache/hpsv2")).expanduser(),
    name=r"hps.?v2(?![._]?1)",
    vocabulary=CLIP_WORDS,
    tokenizer=open_clip_tokenizer,
)

KINDS = {
    "hpsv2": HPSV2,
    "hpsv2.1": dataclasses.replace(HPSV2, title="HPSv2.1", file="HPS_v2.1_compressed.pt", name=r"hps.?v2[._]?1"),
    "pickscore": Kind(
        "PickScore",
        layouts.TRANSFORMERS,
        VIT_H,
        partial(CosineScorer, pixels=crop_to_square, formula=scaled_cosine),
        repository="yuvalkirstain/PickScore_v1",
        name=r"pick.?score",
        vocabulary=CLIP_WORDS,
        tokenizer=clip_tokenizer,
    ),
    "clipscore": Kind(
        "CLIPScore",
        layouts.TRANSFORMERS,
        VIT_L,
        partial(CosineScorer, pixels=crop_to_square, formula=clip_score),
        repository=CLIP_L,
        name=r"clip.?score|clip-vit",
        vocabulary=CLIP_WORDS,
        tokenizer=clip_tokenizer,
    ),
    "aesthetic": Kind(
        "LAION's aesthetic predictor",
        layouts.AESTHETIC,
        VIT_L,
        AestheticScorer,
        file="sac+logos+ava1-l14-linearMSE.pth",
    ),
    "imagereward": Kind(
        "ImageReward",
        layouts.IMAGE_REWARD,
        BLIP_L,
        ImageRewardScorer,
        file="ImageReward.pt",
        repository="THUDM/ImageReward",
        downloads=lambda: Path("~/.cache/ImageReward").expanduser(),
        vocabulary=BERT_WORDS,
        tokenizer=bert_tokenizer,
    ),
    # Its authors give away a pickled program; its state_dict, saved where that runs, is what we read.
    "mps": Kind(
        "MPS",
        layouts.MPS_LAYOUT,
        VIT_H,
        MPSScorer,
        file="MPS_overall.safetensors",
        vocabulary=CLIP_WORDS,
        tokenizer=clip_tokenizer,
    ),
    # How likely it is that a picture shows what its caption says; `npnet demo --comfyui` copies B's file.
    "shapes-a": Kind(
        "the shapes world's detector A", layouts.SHAPES_A, None, ShapesScorer, file="detector-a.safetensors"
    ),
    "shapes-b": Kind(
        "the shapes world's detector B", layouts.SHAPES_B, None, ShapesScorer, file="detector-b.safetensors"
    ),
}
