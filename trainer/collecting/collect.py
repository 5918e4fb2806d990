"""Prompts → a noise prompt dataset (Stage I of the paper, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from npnet_core.npd import NPDWriter, PairKey
from npnet_core.preference import Scorer
from npnet_core.selection import keep_pair
from trainer.bases import Base
from trainer.collecting.batches import batches, encoded
from trainer.collecting.pairs import make_pairs
from trainer.collecting.recipe import Recipe
from trainer.collecting.resume import check_drawn
from trainer.data.images import image_stem, write_image
from trainer.distributed import progress_bar


def collect(
    base: Base,
    scorers: Sequence[Scorer],
    recipe: Recipe,
    keys: Sequence[PairKey],
    writer: NPDWriter,
    *,
    batch: int = 4,
    images: Path | None = None,
) -> None:
    """Make the pairs that are not there yet and write them, with a progress bar.

    Batches are the same whatever was there before, so a run that was stopped ends with the numbers of one that was not.

    Args:
        keys: the pairs, of one shape, those of one prompt side by side.
        batch: pairs at once.
        images: a folder for the images of all pairs, or None.

    Raises:
        InputError: as :func:`trainer.collecting.resume.check_drawn`.
    """
    check_drawn(base, recipe, [key for key in keys if key in writer], writer.folder)
    missing = [chunk for chunk in batches(keys, batch) if not all(key in writer for key in chunk)]
    kept = scored = 0
    with progress_bar(len(keys), sum(map(len, missing)), "pair") as progress:
        for chunk, prompts in encoded(base, missing):
            pairs = make_pairs(base, scorers, recipe, chunk, prompts, with_images=images is not None)
            for i, key in enumerate(chunk):
                scores = {kind: (source[i].item(), target[i].item()) for kind, (source, target) in pairs.scores.items()}
                if images is not None:
                    save_images(images, key, [side[i] for side in pairs.images], scores)
                if key not in writer:  # with other last bits it would count as another noise
                    writer.add(pairs.source[i], pairs.target[i], prompt=key.prompt, seed=key.seed, scores=scores)
            if pairs.scores:
                agreed = [keep_pair(source, target, 0.0) for source, target in pairs.scores.values()]
                kept, scored = kept + int(torch.stack(agreed).all(0).sum()), scored + len(chunk)
                progress.set_postfix_str(f"{kept / scored:.0%} kept at margin 0", refresh=False)
            progress.update(len(chunk))


def save_images(folder: Path, key: PairKey, images: Sequence[Tensor], scores: dict[str, tuple[float, float]]) -> None:
    """Source's and target's image [H, W, 3] as PNGs; what made them is in their text chunk ``npnet``."""
    for side, (name, image) in enumerate(zip(("source", "target"), images, strict=True)):
        metadata = {"prompt": key.prompt, "seed": key.seed, "noise": name}
        metadata["scores"] = {kind: pair[side] for kind, pair in scores.items()}
        write_image(folder / f"{image_stem(key.prompt, key.seed)}-{name}.png", image, metadata)
