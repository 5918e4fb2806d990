"""What loaders of other libraries say, as errors of ours: what they raise, and what they only warn about."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from npnet_core.errors import InputError, first_of

# of a text encoder that was saved with its picture side, its language head, or what its positions are counted by
UNUSED = re.compile(r"(^|\.)(position_ids|logit_scale|text_projection|vision_model|visual_projection|lm_head)(\.|$)")


# advice to who writes Python, in a message of these libraries
CODE = re.compile(r"`?\w+=(True|False|None)\b|from_pretrained|from_single_file|torch\.nn|\bpass (both|in|the)\b")


@contextmanager
def loading(source: str | Path) -> Iterator[None]:
    """Turn what the loaders raise for absent, foreign and damaged files into one sentence that keeps their reason."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from safetensors import SafetensorError

    try:
        yield
    except (InputError, torch.cuda.OutOfMemoryError):
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, SingleFileComponentError) as error:
        sentences = re.split(r"(?<=[.!?])\s+", str(error))
        reason = " ".join(each for each in sentences if not CODE.search(each)) or str(error) or type(error).__name__
        reason = textwrap.shorten(reason, 240, placeholder=" …").rstrip(".")
        remedy = "check the name, and download it first if this machine is offline"
        if Path(source).exists():
            remedy = "check that it is complete and of the right kind"
        raise InputError(f"{source} cannot be loaded ({reason}): {remedy}.") from error


def check_keys(source: str | Path, part: str, info: Mapping[str, Iterable]) -> None:
    """Refuse what ``from_pretrained`` only warns about: weights that stay random, and weights that nothing reads.

    Args:
        part: what was loaded, for the sentence.
        info: what ``output_loading_info=True`` returns.

    Raises:
        InputError: it names the first keys of each kind.
    """
    unexpected = [key for key in info["unexpected_keys"] if not UNUSED.search(key)]
    complaints = {
        "not in it": info["missing_keys"],
        "of another shape": info["mismatched_keys"],
        "left over": unexpected,
    }
    found = [f"{kind}: {first_of(sorted(map(_name, keys)))}" for kind, keys in complaints.items() if keys]
    if found:
        raise InputError(
            f"{source} does not have the weights that its {part} needs ({'; '.join(found)}): get it again, or choose a "
            "model of the right kind."
        )


def _name(key: str | tuple) -> str:
    """Of a mismatched key, which comes with its shapes."""
    return key if isinstance(key, str) else str(key[0])
