"""Training pairs in the net's view."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from npnet_core.architectures import new_net
from npnet_core.config import NPNetConfig, UNetConfig
from npnet_core.golden import golden_noise
from npnet_core.layers import decompose
from npnet_core.model import NPNet
from npnet_core.npd import NPDReader
from tests.tiny_fit import BASE, DIM, TOKENS, make_dataset
from trainer.data.embeddings import Embeddings, store_embeddings
from trainer.fitting.pair_batches import Batches, in_net_view

R = 8
CONFIG = NPNetConfig(
    resolution=R,
    prompt_tokens=TOKENS,
    prompt_dim=DIM,
    swin_size=16,
    swin_dim=8,
    swin_depths=(1,),
    swin_heads=(1,),
    swin_window=2,
    fixed_signs=True,
)
SIZES = [(8, 8), (4, 4), (16, 16), (4, 16), (6, 11), (13, 10), (9, 7)]


def pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height * 100 + width)
    source, change = torch.randn(2, 4, height, width, generator=generator)
    return source, source + 0.3 * change


def overlaps(cells_out: int, cells_in: int) -> Tensor:
    """A of the design, cell by cell: |cell_k ∩ cell_l| / √(|cell_k| |cell_l|), fp64."""
    a = torch.zeros(cells_out, cells_in, dtype=torch.float64)
    for k in range(cells_out):
        for m in range(cells_in):
            common = min((k + 1) / cells_out, (m + 1) / cells_in) - max(k / cells_out, m / cells_in)
            a[k, m] = max(common, 0) * (cells_out * cells_in) ** 0.5
    return a


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_training_shows_the_net_what_golden_noise_shows_it(height, width):
    source, target = pair(height, width)
    seen = []
    npnet = NPNet(CONFIG).eval()
    npnet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    golden_noise(npnet, source[None], torch.randn(1, TOKENS, DIM))
    noise, _ = in_net_view(source, target, R)
    torch.testing.assert_close(noise, seen[0][0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_change_is_transported(height, width):
    source, target = pair(height, width)
    noise, golden = in_net_view(source, target, R)
    expected = overlaps(R, height) @ (target - source).double() @ overlaps(R, width).T
    torch.testing.assert_close((golden - noise).double(), expected, atol=1e-5, rtol=0)


class Oracle(NPNet):
    """A net that has learned one pair: its output is the target in its view."""

    def forward(self, noise: Tensor, prompt: Tensor, svd=None) -> Tensor:
        torch.testing.assert_close(noise, self.noise, atol=1e-6, rtol=0)
        return self.target


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_is_learned_there_comes_back(height, width):
    """A net without error gives the target itself where cells of the view divide those of the noise, and elsewhere
    A_hᵀ A_h (x' − x) A_wᵀ A_w, which is most of the change."""
    source, target = pair(height, width)
    oracle = Oracle(CONFIG).eval()
    oracle.noise, oracle.target = (side[None] for side in in_net_view(source, target, R))
    golden = golden_noise(oracle, source[None], torch.zeros(1, TOKENS, DIM))[0]

    change = (target - source).double()
    there_and_back = [overlaps(R, side).T @ overlaps(R, side) for side in (height, width)]
    expected = there_and_back[0] @ change @ there_and_back[1]
    torch.testing.assert_close((golden - source).double(), expected, atol=1e-5, rtol=0)
    if R % height == 0 and R % width == 0:
        torch.testing.assert_close(golden, target, atol=1e-5, rtol=0)
    if height <= R and width <= R:
        assert (golden - target).square().sum() < 0.5 * (source - target).square().sum()


def test_source_and_target_stay_white():
    """Of a target that is as white as its source; variance and neighbours' correlation over 400 pairs."""
    generator = torch.Generator().manual_seed(0)
    views = [in_net_view(*torch.randn(2, 4, 13, 6, generator=generator), R) for _ in range(400)]
    for side in zip(*views, strict=True):
        noise = torch.stack(side).double()
        assert abs(noise.var().item() - 1) < 0.02
        assert abs((noise[..., 1:] * noise[..., :-1]).mean().item()) < 0.01
        assert abs((noise[..., 1:, :] * noise[..., :-1, :]).mean().item()) < 0.01


def test_a_batch_holds_each_pair_s_own_prompt_and_svd(tmp_path):
    data = make_dataset(tmp_path / "pairs", sizes=((8, 8), (6, 11)))
    reader, embeddings = NPDReader(data), Embeddings(data, BASE)
    indices = [30, 3, 8, 3]
    batch = Batches(reader, embeddings, CONFIG, torch.device("cpu"))(indices)
    assert batch.indices == indices
    for i, index in enumerate(indices):
        noise, target = in_net_view(*reader[index], R)
        assert torch.equal(batch.noise[i], noise)
        assert torch.equal(batch.target[i], target)
        assert torch.equal(batch.prompt[i], embeddings.batch([reader.records[index].key.prompt])[0].float())
    svd = decompose(batch.noise, 2, fixed_signs=True)
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in zip(batch.svd, svd, strict=True))


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> tuple[NPDReader, Embeddings, list[Tensor]]:
    """Pairs, their prompts of 2 to 5 tokens, and these tokens by prompt."""
    data = make_dataset(tmp_path_factory.mktemp("masked") / "pairs", prompts=8)
    reader = NPDReader(data)
    lengths = torch.arange(len(reader.prompts)) % 4 + 2
    mask = torch.arange(5) < lengths[:, None]
    embeds = torch.randn(*mask.shape, DIM, generator=torch.Generator().manual_seed(0)).half().float()
    store_embeddings(data, "masked", reader.prompts, embeds, prompt_mask=mask)
    return reader, Embeddings(data, "masked"), [row[own] for row, own in zip(embeds, mask, strict=True)]


def test_a_net_that_reads_every_token_is_told_which_are_none(masked):
    reader, embeddings, tokens = masked
    torch.manual_seed(0)
    net = new_net(UNetConfig("sdxl", 4, R, *embeddings.shape, widths=(32,))).eval()
    torch.nn.init.normal_(net.last.linear.weight, std=0.1)
    batch = Batches(reader, embeddings, net.config, torch.device("cpu"))([0, 9, 5])
    assert batch.prompt_mask is not None
    golden = net(*batch.inputs)
    for i, index in enumerate(batch.indices):
        own = tokens[reader.prompts.index(reader.records[index].key.prompt)]
        torch.testing.assert_close(golden_noise(net, batch.noise[i : i + 1], own[None]), golden[i : i + 1])


def test_a_net_of_a_fixed_number_of_tokens_gets_that_number(masked):
    """As golden_noise gives it: the first ones, zeros behind shorter prompts, and no mask."""
    reader, embeddings, tokens = masked
    torch.manual_seed(0)
    net = NPNet(dataclasses.replace(CONFIG, prompt_tokens=4, prompt_dim=DIM)).eval()
    torch.nn.init.constant_(net.alpha, 1.0)
    batch = Batches(reader, embeddings, net.config, torch.device("cpu"))([0, 3, 9])
    assert batch.prompt.shape == (3, 4, DIM)
    assert batch.prompt_mask is None
    golden = net(*batch.inputs)
    for i, index in enumerate(batch.indices):
        own = tokens[reader.prompts.index(reader.records[index].key.prompt)]
        ours = golden_noise(net, batch.noise[i : i + 1], own[None])
        torch.testing.assert_close(ours, golden[i : i + 1], atol=1e-4, rtol=1e-4)
