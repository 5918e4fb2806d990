"""Pictures are scored in batches, as they are on the disk; scores that are there stay."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from npnet_core.errors import InputError
from npnet_core.preference import Scorer
from trainer import bases
from trainer.collecting.scorers import LazyScorer
from trainer.data.images import read_images
from trainer.data.jsonl import append_jsonl
from trainer.data.prefetch import prefetch
from trainer.distributed import progress_bar
from trainer.evaluation.pictures import Picture

log = logging.getLogger(__name__)

THREADS = 2  # that read PNGs while a network works


def score_with(
    each: Scorer | LazyScorer, chunks: Sequence[Sequence[Picture]], out: Path, scores: Path, known: dict
) -> dict[str, str]:
    """Score with one preference model. Returns {} or, if it cannot be loaded, {kind: why}: the others still run."""
    if isinstance(each, Scorer):
        score_images(each, chunks, out, scores, known)
        return {}
    try:
        scorer = each.load()
    except InputError as error:
        log.warning("%s", error)
        return {each.kind: str(error)}
    score_images(scorer, chunks, out, scores, known)
    scorer.model.to("cpu")
    bases.free_memory(each.device)
    return {}


def score_images(
    scorer: Scorer,
    chunks: Sequence[Sequence[Picture]],
    out: Path,
    scores: Path,
    known: dict[tuple[str, str], float],
) -> None:
    """Score the images that have no score yet, read back from the disk, with a progress bar.

    Args:
        chunks: images to score at once, of one size each.
        scores: the file of lines to append to.
        known: (image, metric) → score of what there is; gets the new ones too.
    """
    missing = [chunk for chunk in chunks if not is_scored(scorer.kind, chunk, known)]
    total, left = (sum(map(len, some)) for some in (chunks, missing))
    with progress_bar(total, left, "image", scorer.kind) as progress:
        for chunk, images in zip(missing, _read_ahead(out, missing), strict=True):
            values = scorer.score(images, [picture.draw.prompt for picture in chunk]).tolist()
            for picture, value in zip(chunk, values, strict=True):
                if not math.isfinite(value):
                    raise InputError(
                        f"{scorer.kind} scores {out / picture.image} with {value}: look at that image, and at the "
                        "weights of that preference model."
                    )
            new = [
                picture.row(scorer.kind, value)
                for picture, value in zip(chunk, values, strict=True)
                if (picture.image, scorer.kind) not in known
            ]
            append_jsonl(scores, new)
            known |= {(row["image"], row["metric"]): row["score"] for row in new}
            progress.update(len(chunk))


def is_scored(metric: str, pictures: Sequence[Picture], known: dict[tuple[str, str], float]) -> bool:
    """Whether all of them have that score."""
    return all((picture.image, metric) in known for picture in pictures)


def _read_ahead(out: Path, chunks: Sequence[Sequence[Picture]]) -> Iterator[Tensor]:
    return prefetch(lambda chunk: read_images([out / picture.image for picture in chunk]), chunks, THREADS)
