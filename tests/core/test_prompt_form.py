"""What nets see of a prompt does not depend on who padded it, and of CLIP's nothing changes."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from npnet_core.architectures import new_net
from npnet_core.config import UNetConfig
from npnet_core.golden import golden_noise
from npnet_core.prompt_form import canonical, tokens_first

TOKENS, DIM = 7, 24


def states(*shape: int, seed: int = 0) -> torch.Tensor:
    """Hidden states whose tokens differ in size by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    size = 10 ** (4 * torch.rand(*shape[:-1], 1, generator=generator) - 1)
    return torch.randn(*shape, generator=generator) * size


@pytest.mark.parametrize("family", ["sdxl", "sd1", "sd2", "sd", "hunyuan-dit", "sd3", "flux", "of my own"])
def test_other_families_see_what_came(family):
    embeds = states(2, TOKENS, DIM)
    seen, mask = canonical(family, embeds)
    assert torch.equal(seen, embeds)
    assert mask is None
    half, _ = canonical(family, embeds.half())
    assert torch.equal(half, embeds.half().float())


def test_z_image_is_divided_as_the_norm_that_it_misses_would():
    embeds = states(2, TOKENS, DIM)
    seen, _ = canonical("z-image", embeds)
    torch.testing.assert_close(seen, Qwen3RMSNorm(DIM, eps=0)(embeds))
    torch.testing.assert_close(canonical("z-image", seen)[0], seen)
    torch.testing.assert_close(canonical("z-image", 1000 * embeds)[0], seen)


@pytest.mark.parametrize("family", ["z-image", "sd3"])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_where_padding_stands_and_what_it_is_do_not_matter(family, kind):
    prompts = [states(1, n, DIM, seed=n)[0] for n in (3, 5)]
    left, right = torch.full((2, TOKENS, DIM), torch.nan), states(2, TOKENS, DIM, seed=9)
    masks = torch.zeros(2, 2, TOKENS)
    for i, prompt in enumerate(prompts):
        left[i, TOKENS - len(prompt) :], masks[0, i, TOKENS - len(prompt) :] = prompt, 1
        right[i, : len(prompt)], masks[1, i, : len(prompt)] = prompt, 1
    (a, mask_a), (b, mask_b) = (
        canonical(family, x, mask.to(kind)) for x, mask in zip((left, right), masks, strict=True)
    )
    assert torch.equal(a, b)
    assert torch.equal(mask_a, mask_b)
    assert mask_a.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert not a[0, 3:].any()
    for i, prompt in enumerate(prompts):
        assert torch.equal(a[i, : len(prompt)], canonical(family, prompt[None])[0][0])
    assert all(map(torch.equal, canonical("sd3", a, mask_a), (a, mask_a)))


def test_tokens_keep_their_order():
    embeds = torch.arange(6.0).view(1, 6, 1)
    mask = torch.tensor([[False, True, True, False, True, False]])
    assert tokens_first(embeds, mask)[0].flatten().tolist() == [1, 2, 4]


def test_a_token_of_nothing_stays_nothing():
    assert not canonical("z-image", torch.zeros(1, 2, DIM))[0].any()


def test_golden_noise_sees_the_form():
    """The size of Z-Image's tokens, and what came as their padding, change nothing."""
    torch.manual_seed(0)
    net = new_net(UNetConfig("z-image", 16, 8, TOKENS, DIM, widths=(32,))).eval()
    torch.nn.init.normal_(net.last.linear.weight, std=0.1)
    noise, embeds = torch.randn(2, 16, 8, 8), states(2, TOKENS, DIM)
    mask = torch.arange(TOKENS) < torch.tensor([[4], [TOKENS]])
    golden = golden_noise(net, noise, embeds, mask)
    assert not torch.allclose(golden, noise, atol=0.01)
    seen, seen_mask = canonical("z-image", embeds, mask)
    torch.testing.assert_close(golden_noise(net, noise, seen, seen_mask), golden)
    torch.testing.assert_close(golden_noise(net, noise, 100 * embeds, mask), golden)
    torch.testing.assert_close(net(noise, seen, seen_mask), golden)  # as it is trained
