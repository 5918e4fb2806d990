"""Prompts that differ in length, joined and taken apart."""

from __future__ import annotations

import pytest
import torch

from trainer.bases.prompts import Prompts, by_length, concatenated, join


def told(*lengths: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """What a network is told with prompts of these lengths."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(*mask.shape, 3, generator=generator) * mask[..., None]
    return {"prompt_embeds": embeds, "prompt_mask": mask, "pooled": torch.randn(len(mask), 5, generator=generator)}


def test_shorter_prompts_are_filled_up():
    short, long = told(2, 3), told(5, seed=1)
    both = concatenated([short, long])
    assert both["prompt_mask"].tolist() == [[True] * n + [False] * (5 - n) for n in (2, 3, 5)]
    assert torch.equal(both["prompt_embeds"][:2, :3], short["prompt_embeds"])
    assert not both["prompt_embeds"][:2, 3:].any()
    assert torch.equal(both["pooled"], torch.cat([short["pooled"], long["pooled"]]))


def test_what_has_no_mask_has_one_length():
    """SDXL's 77 and 154 tokens are no batch: zeros would be tokens."""
    first, second = ({"prompt_embeds": torch.ones(1, tokens, 3)} for tokens in (77, 154))
    with pytest.raises(RuntimeError):
        concatenated([first, second])


def test_prompts_of_other_lengths_can_be_picked_and_joined():
    uncond = told(1)
    prompts = join([Prompts(told(2, 3), uncond), Prompts(told(5, seed=1), uncond)])
    assert len(prompts) == 3
    picked = prompts[[2, 0, 0]]
    assert picked.prompt_mask.sum(1).tolist() == [5, 2, 2]
    assert torch.equal(picked.prompt_embeds[1], prompts.prompt_embeds[0])
    assert picked.uncond is uncond


def test_by_length_gives_every_row_once_and_whole():
    inputs = concatenated([told(2, 3), told(2, 5, seed=1)])
    seen = {}
    for rows, cut in by_length(inputs):
        assert cut.keys() == {"prompt_embeds", "pooled"}
        for row, embeds, pooled in zip(rows.tolist(), cut["prompt_embeds"], cut["pooled"], strict=True):
            seen[row] = len(embeds)
            assert torch.equal(embeds, inputs["prompt_embeds"][row, : len(embeds)])
            assert torch.equal(pooled, inputs["pooled"][row])
    assert seen == {0: 2, 1: 3, 2: 2, 3: 5}


def test_by_length_of_prompts_without_a_mask_is_all_at_once():
    inputs = {"prompt_embeds": torch.ones(4, 7, 3)}
    [(rows, same)] = by_length(inputs)
    assert rows.tolist() == [0, 1, 2, 3]
    assert same is inputs
