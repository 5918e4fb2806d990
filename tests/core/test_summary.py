"""The figures of a dataset, counted anew by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from npnet_core.diagnostics import singular_vector_overlap
from npnet_core.errors import InputError
from npnet_core.npd import Manifest, NPDReader, NPDWriter
from npnet_core.summary import dataset_overlap, render, render_overlap, summarise

MANIFEST = Manifest("sdxl", (11.0, 8.5), 5.5, 1.0, "exact", 1, {"sampler": "ddim"})


@pytest.fixture
def reader(tmp_path) -> NPDReader:
    generator = torch.Generator().manual_seed(0)
    with NPDWriter(tmp_path, MANIFEST, worker="w", pairs_per_part=8) as writer:
        for i in range(40):
            source = torch.randn(4, 8, 8 if i % 4 else 6, generator=generator)
            hps, aes = torch.randn(2, 2, generator=generator).tolist()
            scores = {"hpsv2": tuple(hps)} | ({"aes": tuple(aes)} if i % 2 else {})
            writer.add(source, source + 0.1, prompt=f"p{i % 5}", seed=100 + i // 2, scores=scores)
    return NPDReader(tmp_path)


def test_counts(reader):
    summary = summarise(reader)
    assert (summary.pairs, summary.prompts, summary.seeds, summary.parts) == (40, 5, 20, 5)
    assert summary.seed_range == (100, 119)
    assert summary.shapes == {(4, 8, 8): 30, (4, 8, 6): 10}
    assert next(iter(summary.shapes)) == (4, 8, 8)
    assert summary.recorded == [{"sampler": "ddim"}]
    assert summary.hash == reader.hash
    assert summary.bytes == sum(path.stat().st_size for path in reader.folder.glob("parts/*.safetensors"))


def test_scores_and_filter_rates(reader):
    summary = summarise(reader, margins=(0.0, 0.5))
    for scorer, pairs in (("hpsv2", 40), ("aes", 20)):
        score = summary.scores[scorer]
        values = [record.scores[scorer] for record in reader.records if scorer in record.scores]
        assert score.pairs == len(values) == pairs
        assert score.source_mean == pytest.approx(sum(source for source, _ in values) / pairs)
        assert score.target_mean == pytest.approx(sum(target for _, target in values) / pairs)
        for margin in (0.0, 0.5):
            kept = sum(source + margin < target for source, target in values)
            assert score.filter_rates[margin] == pytest.approx(1 - kept / pairs)
        for side, counts in enumerate((score.source_counts, score.target_counts)):
            assert sum(counts) == pairs
            for low, high, count in zip(score.edges[:-1], score.edges[1:-1], counts[:-1], strict=False):
                assert count == sum(low <= value[side] < high for value in values)
    agree = [all(s < t for s, t in record.scores.values()) for record in reader.records]
    assert summary.filter_rate_all == pytest.approx(1 - sum(agree) / 40)


def test_equal_scores_and_no_scores(tmp_path):
    noise = torch.zeros(4, 4, 4)
    with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
        writer.add(noise, noise, prompt="p", seed=1)
    summary = summarise(NPDReader(tmp_path))
    assert summary.scores == {}
    assert summary.filter_rate_all is None
    with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
        writer.add(noise, noise, prompt="p", seed=2, scores={"hpsv2": (0.25, 0.25)})
    summary = summarise(NPDReader(tmp_path))
    assert sum(summary.scores["hpsv2"].source_counts) == 1
    assert summary.filter_rate_all == 1.0  # a tie is not preferred
    assert "dropped" in render(summary)


def test_overlap_agrees_with_numpy():
    source, target = torch.randn(2, 3, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    left, right = singular_vector_overlap(source, target)
    expected = np.zeros((2, 12))
    for pair in zip(source.numpy(), target.numpy(), strict=True):
        (u, _, vh), (u2, _, vh2) = (
            np.linalg.svd(np.block([[n[0], n[1]], [n[2], n[3]]]), full_matrices=False) for n in pair
        )
        for row, cosines in enumerate([[u[:, k] @ u2[:, k] for k in range(12)], [vh[k] @ vh2[k] for k in range(12)]]):
            expected[row] += np.sort(np.abs(cosines))[::-1] / 3
    np.testing.assert_allclose(left, expected[0], atol=1e-5)
    np.testing.assert_allclose(right, expected[1], atol=1e-5)


def test_overlap_of_the_same_vectors_is_one():
    source = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for target in (source, -source, 3 * source):
        for cosines in singular_vector_overlap(source, target):
            torch.testing.assert_close(cosines, torch.ones(16))


def test_dataset_overlap_compares_with_strangers(reader):
    pairs, strangers = dataset_overlap(reader, pairs=12)
    assert len(pairs.left) == 16  # of the more frequent size
    assert pairs.left.mean() > 2 * strangers.left.mean()
    assert pairs.right.mean() > 2 * strangers.right.mean()
    lines = render_overlap(pairs, strangers).splitlines()
    assert f"{pairs.left[0]:.3f}" in lines[2]
    assert f"{strangers.right[-1]:.3f}" in lines[-1]


def test_overlap_of_what_cannot_be_compared(tmp_path):
    with pytest.raises(InputError, match="3 channels"):
        singular_vector_overlap(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    noise = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0))
    with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
        writer.add(noise, noise, prompt="p", seed=1)
    with pytest.raises(InputError, match="1 pairs of one size"):
        dataset_overlap(NPDReader(tmp_path))


def test_text(reader):
    summary = summarise(reader)
    text = render(summary)
    for piece in (
        "40 (5 prompts, 20 seeds)",
        "4x8x8: 30 pairs",
        "exact inversion at cfg 1",
        '"sampler": "ddim"',
    ):
        assert piece in text
    assert f"0.005: {summary.scores['hpsv2'].filter_rates[0.005]:.2%}" in text
    assert "every scorer" in text


def test_empty(tmp_path):
    NPDWriter(tmp_path, MANIFEST, worker="w")
    summary = summarise(NPDReader(tmp_path))
    assert summary.pairs == 0
    assert summary.seed_range is None
    assert "pairs       0" in render(summary)
    with pytest.raises(InputError, match="0 pairs"):
        dataset_overlap(NPDReader(tmp_path))
