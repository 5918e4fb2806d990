"""Prompts → the token ids of each preference model."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, reason
from .architecture import Text

Tokenizer = Callable[[Sequence[str]], Tensor]  # B prompts → ids [B, length]


def clip_tokenizer(folder: Path, text: Text) -> Tokenizer:
    """As CLIP's processor has it: NFC, single spaces, lower case; filled up with the end token.

    Args:
        folder: where ``vocab.json`` and ``merges.txt``, or ``tokenizer.json``, are.
        text: the tower that reads the ids; a longer prompt is cut and keeps an end token.

    Raises:
        InputError: if the vocabulary is not the tower's.
    """
    tokenizer = _clip_vocabulary(folder, text)
    return lambda prompts: _ids(tokenizer, prompts, text.context_length, filler=tokenizer.eos_token_id)


def open_clip_tokenizer(folder: Path, text: Text) -> Tokenizer:
    """As open_clip and HPSv2 have it: mojibake and HTML entities are repaired before; filled up with zeros."""
    tokenizer = _clip_vocabulary(folder, text)
    return lambda prompts: _ids(tokenizer, map(repair, prompts), text.context_length, filler=0)


def bert_tokenizer(folder: Path, text: Text) -> Tokenizer:
    """As BERT has it: lower-case word pieces of the ``vocab.txt`` in ``folder``; filled up with zeros."""
    from transformers import BertTokenizerFast

    tokenizer = _read(BertTokenizerFast, folder)
    if len(tokenizer) > text.vocab_size:
        raise InputError(
            f"{folder} has {len(tokenizer)} words for a model that knows {text.vocab_size}: put the vocab.txt of "
            "bert-base-uncased there."
        )
    return lambda prompts: _ids(tokenizer, prompts, text.context_length, filler=0)


def repair(text: str) -> str:
    """Mojibake and HTML entities → what was meant; an entity may have been escaped twice."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _clip_vocabulary(folder: Path, text: Text):
    from transformers import CLIPTokenizerFast

    tokenizer = _read(CLIPTokenizerFast, folder)
    if tokenizer.eos_token_id != text.vocab_size - 1:  # the tower reads its result at the last id of the vocabulary
        raise InputError(
            f"{folder} is not the vocabulary of this model, whose end token is {text.vocab_size - 1} and not "
            f"{tokenizer.eos_token_id}: name a folder with the vocab.json and merges.txt of CLIP."
        )
    return tokenizer


def _read(kind: type, folder: Path):
    try:
        return kind.from_pretrained(folder)
    except Exception as error:  # tokenizers raises nothing more telling
        raise InputError(
            f"The vocabulary in {folder} cannot be read ({reason(error)}): get its files again."
        ) from error


def _ids(tokenizer, prompts: Iterable[str], length: int, filler: int) -> Tensor:
    prompts = list(prompts)
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"The prompt {prompt!r} has half a character: write it anew.") from error
    rows = tokenizer(prompts, truncation=True, max_length=length)["input_ids"]
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows])
