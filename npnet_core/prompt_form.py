"""The one form in which nets see a prompt, whoever encoded it: fp32, its tokens in front, zeros behind.

ComfyUI and diffusers hand the same model other padding, other lengths and other masks. What users' graphs hold decides,
and both sides come to it so:

    family               diffusers                  ComfyUI                     what nets see
    sd1, sd2, sdxl       77 CLIP                    77 CLIP, more in chunks     as they came, padding and all
    hunyuan-dit          77 BERT, mask              BERT and mask, beside mT5   the first 77 as they came, no mask
    sd3                  77 CLIP L+G, T5 to 256     77 CLIP L+G, T5 from 77 up  ComfyUI's: the trainer pads T5 alike
    flux (FLUX.1)        T5 to 512                  T5 from 256 up              ComfyUI's, likewise
    z-image              Qwen3's template, no pads  the same and a mask         the template's and the prompt's tokens,
                                                                                each divided by its RMS

T5 takes no mask in either of them, so its states of words depend on how far a prompt is padded, the network reads its
padding, and a conditioning does not say where it begins: padding is tokens there, and the trainer has to pad as users
do. "From 77 up" means that longer prompts are as long as they are; shorter ones of a batch have a mask. Only of CLIP's
words the trainer keeps 77, where ComfyUI goes on in chunks of 77.

Hidden states behind a final norm (CLIP's last, T5's, BERT's) have a scale of their own. Those before it have none:
in a language model single features of the first token dwarf all others (massive activations, arXiv 2402.17762). So
nets see each token divided by its root mean square, as the norm that it misses would. (The CLIP states of SDXL and SD3
have seen none either; the published nets were trained on them as they are.)
"""

from __future__ import annotations

import torch
from torch import Tensor

UNNORMALISED = frozenset({"z-image"})  # families whose prompts are hidden states that no norm has seen
TINY = 1e-6  # RMS of a token that is nothing


def canonical(family: str, prompt_embeds: Tensor, prompt_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """A prompt as the text encoder of a family gave it → as nets see it. Doing it twice changes nothing.

    Args:
        family: as in :class:`npnet_core.config.Config`; one that is not known here is left as it came.
        prompt_embeds: [N, T, D], any floating-point type.
        prompt_mask: [N, T], True or not 0 for its tokens, in any place; None where all are.

    Returns:
        [N, T', D] fp32 with zeros behind each prompt's tokens, and their mask [N, T'] bool, T' the length of the
        longest; without a mask the T tokens as they are, and None.
    """
    embeds = prompt_embeds.float()
    if family in UNNORMALISED:
        embeds = embeds / embeds.square().mean(-1, keepdim=True).sqrt().clamp(min=TINY)
    return (embeds, None) if prompt_mask is None else tokens_first(embeds, prompt_mask.to(embeds.device) != 0)


def tokens_first(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """[N, T, D] and [N, T] bool: the tokens of each prompt in their order, then zeros, cut to the longest."""
    longest = int(mask.sum(1).max())
    order = mask.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    mask = mask.gather(1, order)
    embeds = embeds.gather(1, order[..., None].expand(-1, -1, embeds.shape[2]))
    return torch.where(mask[..., None], embeds, 0), mask
