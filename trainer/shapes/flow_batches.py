"""One prediction of Z-Image's transformer for a batch of like shapes: the same as its own, which goes one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

SEQUENCE = 32  # tokens: prompts and patches are each padded to a multiple


def chat_ids(tokenizer, caption: str) -> Tensor:
    """[T]: the tokens that Z-Image's text encoder reads for a prompt."""
    messages = [{"role": "user", "content": caption}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return torch.tensor(tokenizer(text).input_ids)


def hidden_states(text_encoder, ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What Z-Image reads of prompts: [B, T, D], padded behind, and their lengths [B]."""
    device = text_encoder.device
    lengths = torch.tensor([len(each) for each in ids], device=device)
    tokens = pad_sequence(list(ids), batch_first=True, padding_value=text_encoder.config.pad_token_id).to(device)
    mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
    states = text_encoder(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    return states, lengths


def velocity(transformer, x: Tensor, sigma: Tensor, prompt_embeds: Tensor, lengths: Tensor) -> Tensor:
    """What the network makes of x, with the sign of ``eps - latents``: [B, C, h, w].

    Args:
        x: [B, C, h, w]; h and w even.
        sigma: [B] in 0..1.
        prompt_embeds, lengths: of :func:`hidden_states`; up to :data:`SEQUENCE` tokens.
    """
    b, c, h, w = x.shape
    modulation = transformer.t_embedder((1 - sigma) * transformer.t_scale).to(x.dtype)
    patches = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, -1, 4 * c)
    count = patches.shape[1]
    padding = -count % SEQUENCE
    image = transformer.all_x_embedder["2-1"](patches)
    image = torch.cat([image, transformer.x_pad_token.to(image.dtype).expand(b, padding, -1)], 1)
    prompt = transformer.cap_embedder(prompt_embeds)
    prompt = torch.nn.functional.pad(prompt, (0, 0, 0, SEQUENCE - prompt.shape[1]))
    real = torch.arange(SEQUENCE, device=x.device) < lengths[:, None]
    prompt = torch.where(real[..., None], prompt, transformer.cap_pad_token.to(prompt.dtype))

    y, column = torch.arange(h // 2, device=x.device), torch.arange(w // 2, device=x.device)
    start = torch.full((count,), SEQUENCE + 1, device=x.device)
    places = torch.stack([start, y.repeat_interleave(w // 2), column.repeat(h // 2)], 1)
    image_freqs = transformer.rope_embedder(torch.cat([places, places.new_zeros(padding, 3)]))
    words = torch.arange(1, SEQUENCE + 1, device=x.device)
    prompt_freqs = transformer.rope_embedder(torch.stack([words, 0 * words, 0 * words], 1))
    image_freqs, prompt_freqs = (freqs.expand(b, -1, -1) for freqs in (image_freqs, prompt_freqs))

    for layer in transformer.noise_refiner:
        image = layer(image, None, image_freqs, modulation)
    for layer in transformer.context_refiner:
        prompt = layer(prompt, None, prompt_freqs)
    both, freqs = torch.cat([image, prompt], 1), torch.cat([image_freqs, prompt_freqs], 1)
    for layer in transformer.layers:
        both = layer(both, None, freqs, modulation)
    out = transformer.all_final_layer["2-1"](both, modulation)[:, :count]
    out = out.view(b, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
    return -out
