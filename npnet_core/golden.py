"""golden_noise(): noise of any size, batch and prompt length → the net's square view and back.

Noise is never resampled. In one dimension let A[k,l] = |cell_k ∩ cell_l| / √(|cell_k| |cell_l|) for the R output and
n input cells of the unit interval, K = A_h A_hᵀ, L = A_w A_wᵀ and ν fresh Gaussian noise. Then

    z  = A_h x A_wᵀ + (I − K⊗L)^½ ν        is exactly N(0, I) on R×R where x is on H×W,
    x' = x + A_hᵀ (NPNet(z) − z) A_w       carries only the change back,

so the golden noise is as white as the net leaves it. Where n = R, A is the identity and this is the net itself.
A net that takes any size and every token (its config's ``any_size``) needs none of this and is given both as they are.
Padding of a prompt, which a mask tells, is cut off before any net sees it, and the prompt has the form that
:mod:`npnet_core.prompt_form` gives it.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .adapter import Adapter, Predictor, check_predictor
from .architectures import GoldenNet
from .errors import InputError
from .prompt_form import canonical

LONG_PROMPT = ("truncate", "average", "recurse")


class Transport(NamedTuple):
    """One axis of the way from n cells to R: A [R, n], and the eigenvectors and eigenvalues of A Aᵀ, all fp32."""

    a: Tensor
    eigenvectors: Tensor
    eigenvalues: Tensor


@lru_cache(maxsize=64)
def transport(cells_out: int, cells_in: int) -> Transport:
    """The transport of one axis from ``cells_in`` to ``cells_out`` cells, computed in fp64."""
    if cells_in == cells_out:
        eye = torch.eye(cells_out)
        return Transport(eye, eye, torch.ones(cells_out))
    k = torch.arange(cells_out, dtype=torch.float64)[:, None]
    m = torch.arange(cells_in, dtype=torch.float64)[None, :]
    overlap = torch.minimum((k + 1) / cells_out, (m + 1) / cells_in) - torch.maximum(k / cells_out, m / cells_in)
    a = overlap.clamp(min=0) * (cells_out * cells_in) ** 0.5
    eigenvalues, eigenvectors = torch.linalg.eigh(a @ a.T)
    return Transport(a.float(), eigenvectors.float(), eigenvalues.clamp(0, 1).float())


def to_square(noise: Tensor, resolution: int, fresh: Tensor) -> Tensor:
    """z = A_h x A_wᵀ + (I − K⊗L)^½ ν: noise [B, C, H, W] and fresh noise ν [B, C, R, R] → z [B, C, R, R]."""
    h, w = transport(resolution, noise.shape[-2]), transport(resolution, noise.shape[-1])
    # (I − K⊗L)^½ acts on the eigenvectors of K and L, entry by entry
    gain = (1 - torch.outer(h.eigenvalues, w.eigenvalues)).clamp(min=0).sqrt()
    fresh = h.eigenvectors.T @ fresh @ w.eigenvectors
    return h.a @ noise @ w.a.T + h.eigenvectors @ (gain * fresh) @ w.eigenvectors.T


def carry_back(change: Tensor, height: int, width: int) -> Tensor:
    """A_hᵀ d A_w: a change [B, C, R, R] of the net's view → the change [B, C, H, W] of the noise."""
    resolution = change.shape[-1]
    return transport(resolution, height).a.T @ change @ transport(resolution, width).a


def noise_generator(image: Tensor) -> torch.Generator:
    """A CPU generator seeded by a checksum of one image's own noise [..., H, W], fp32 on the CPU."""
    return torch.Generator().manual_seed(zlib.crc32(image.contiguous().numpy().tobytes()))


def prompt_chunks(prompt: Tensor, tokens: int, long_prompt: str) -> list[Tensor]:
    """The pieces [B, tokens, D] of a prompt embedding [B, T, D] that the net is given, the last filled up with zeros.

    ``truncate`` gives the first piece only.
    """
    pieces = prompt.split(tokens, dim=1)[: 1 if long_prompt == "truncate" else None]
    return [F.pad(piece, (0, 0, 0, tokens - piece.shape[1])) for piece in pieces]


def golden_noise(
    npnet: GoldenNet,
    noise: Tensor,
    prompt: Tensor,
    prompt_mask: Tensor | None = None,
    *,
    strength: float = 1.0,
    long_prompt: str = "truncate",
    device: str | torch.device | None = None,
    predictor: Predictor | None = None,
) -> Tensor:
    """Golden noise for a prompt: a pure function of its arguments.

    Args:
        npnet: the net, in eval mode.
        noise: [B, C, H, W] of unit variance, any H and W, any floating-point type, any device.
        prompt: [B, T, D] or [1, T, D], the embedding as the net's base model gives it, any number of tokens T.
        prompt_mask: [B, T] or [1, T] bool, True for the tokens that count, in any place; the others have no influence
            at all. None if all count.
        strength: 0 is the noise, 1 the golden noise, between them ``torch.lerp``; up to 2 the change is exaggerated.
            With correlation ρ between noise and golden noise the variance is 1 − 2s(1−s)(1−ρ): lower between
            0 and 1, higher above.
        long_prompt: what happens to more tokens than the net takes (77). ``truncate``: only the first are used;
            ``average``: the golden noises of all pieces are averaged; ``recurse``: each piece works on the golden
            noise of the one before. Without effect on a net that reads every token (``config.any_size``).
        device: where the net computes; by default where its first parameter is.
        predictor: f of an adapter, which has been told the prompts and reads them in its base model's own way: of
            ``prompt`` nothing is used then but its shape checked, and ``long_prompt`` and ``device`` have no effect.

    Returns:
        [B, C, H, W] in the type and on the device of ``noise``. Images are computed one by one, so item i is to the
        bit what item i alone gives, and memory does not grow with the batch; an adapter's in one batch, as its base
        model samples them.

    Raises:
        InputError: for noise or a prompt that does not fit the net, values that are not finite, a strength outside
            0 … 2, or an adapter without a predictor.
    """
    config = npnet.config
    check_noise(noise, config.channels)
    check_prompt(prompt, len(noise), config.prompt_dim, prompt_mask)
    check_strength(strength)
    if long_prompt not in LONG_PROMPT:
        raise InputError(f"long_prompt={long_prompt!r} came: choose one of {', '.join(LONG_PROMPT)}.")
    if isinstance(npnet, Adapter):
        check_predictor(predictor)
    if strength == 0:
        return noise.clone()
    if isinstance(npnet, Adapter):
        with torch.no_grad():
            golden = npnet(noise.detach().to("cpu", torch.float32), predictor)
        check_golden(golden)
        return torch.lerp(noise, golden.to(noise), strength)

    device = next(npnet.parameters()).device if device is None else torch.device(device)
    x = noise.detach().to("cpu", torch.float32)
    tokens = real_tokens(canonical(config.family, prompt.detach().to(device))[0], prompt_mask)
    images = []
    for i in range(len(x)):
        prompt = tokens[i % len(tokens)]
        chunks = [prompt] if config.any_size else prompt_chunks(prompt, config.prompt_tokens, long_prompt)
        images.append(golden_image(npnet, item(x, i), [item(chunk, 0) for chunk in chunks], long_prompt))
    golden = torch.cat(images)
    check_golden(golden)
    return torch.lerp(noise, golden.to(noise), strength)


def real_tokens(prompt: Tensor, mask: Tensor | None) -> list[Tensor]:
    """[B or 1, T, D] and mask [B or 1, T] → of each prompt the n tokens that count, [1, n, D]."""
    if mask is None:
        return list(prompt.split(1))
    mask = mask.to(prompt.device)
    return [prompt[i % len(prompt), mask[i % len(mask)]][None] for i in range(max(len(prompt), len(mask)))]


def item(batch: Tensor, i: int) -> Tensor:
    """Item i as a batch of one, in memory of its own: where its factors lie decides the last bits of a product."""
    return batch[i : i + 1].clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def golden_image(npnet: GoldenNet, x: Tensor, chunks: list[Tensor], long_prompt: str) -> Tensor:
    """Golden noise of one image: x [1, C, H, W], fp32 on the CPU, chunks [1, tokens, D] each where the net computes."""
    generator = noise_generator(x)
    if long_prompt == "recurse":
        for i, chunk in enumerate(chunks):
            if i > 0:
                check_golden(x)  # no net reads what overflowed
            x = golden_pass(npnet, x, chunk, generator)
        return x
    # every chunk sees the same fresh noise
    state = generator.get_state()
    return sum(golden_pass(npnet, x, chunk, generator.set_state(state)) for chunk in chunks) / len(chunks)


def golden_pass(npnet: GoldenNet, x: Tensor, prompt: Tensor, generator: torch.Generator) -> Tensor:
    """One pass of the net over noise of any size; the formulas of this module."""
    resolution, (height, width) = npnet.config.resolution, x.shape[-2:]
    if npnet.config.any_size or height == width == resolution:
        return npnet(x.to(prompt.device), prompt).cpu()
    fresh = torch.randn(*x.shape[:-2], resolution, resolution, generator=generator)
    z = to_square(x, resolution, fresh)
    return x + carry_back(npnet(z.to(prompt.device), prompt).cpu() - z, height, width)


def check_golden(golden: Tensor) -> None:
    """Raise InputError for golden noise that is not finite."""
    if not golden.isfinite().all():
        raise InputError("The golden noise has NaN or infinite values: use another NPNet file or prompt.")


def check_strength(strength: float) -> None:
    """Raise InputError unless ``strength`` is in 0 … 2."""
    if not 0 <= strength <= 2:
        raise InputError(f"A strength of {strength} came, 0 to 2 was expected: 0 is the source noise, 1 golden noise.")


def check_noise(noise: Tensor, channels: int) -> None:
    """Raise InputError unless ``noise`` is [B, channels, H, W], of a floating-point type and finite."""
    if not noise.is_floating_point():
        raise InputError(f"Noise of type {noise.dtype} came, floating-point numbers were expected: convert it before.")
    if noise.ndim != 4 or noise.shape[1] != channels or 0 in noise.shape:
        raise InputError(
            f"Noise of shape {list(noise.shape)} came, [batch, {channels}, height, width] was expected: use this net "
            "with the base model it was trained for."
        )
    if not noise.isfinite().all():
        raise InputError("The noise has NaN or infinite values: check the node or function that makes it.")


def check_prompt(prompt: Tensor, batch: int, dim: int, mask: Tensor | None = None) -> None:
    """Raise InputError unless ``prompt`` is [1 or batch, at least 1, dim], ``mask``, if there is one, [1 or batch, as
    many] bool with a token in every row, and these tokens finite."""
    if prompt.ndim != 3 or prompt.shape[1] == 0:
        raise InputError(
            f"A prompt embedding of shape {list(prompt.shape)} came, [batch, tokens, {dim}] was expected: encode the "
            "prompt with the net's base model."
        )
    if prompt.shape[2] != dim:
        raise InputError(
            f"A prompt embedding {prompt.shape[2]} wide came, this net was trained on {dim}: use the text encoder of "
            "the net's base model."
        )
    if len(prompt) not in (1, batch):
        raise InputError(f"{len(prompt)} prompt embeddings came for {batch} noises: give one for all or one for each.")
    if mask is not None:
        tokens = prompt.shape[1]
        if mask.dtype != torch.bool or mask.ndim != 2 or len(mask) not in (1, batch) or mask.shape[1] != tokens:
            raise InputError(
                f"A prompt mask of shape {list(mask.shape)} and type {mask.dtype} came, [batch, {tokens}] truth values "
                "were expected: give one for every token."
            )
        if not mask.any(1).all():
            raise InputError("A prompt mask without any token came: give True for the tokens that are no padding.")
        prompt = torch.where(mask.to(prompt.device)[..., None], prompt, 0)
    if not prompt.isfinite().all():
        raise InputError("The prompt embedding has NaN or infinite values: check the text encoder.")
