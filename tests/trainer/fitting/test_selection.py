"""Which pairs a fit takes, and which of them it holds out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from npnet_core.errors import InputError
from npnet_core.npd import Manifest, NPDReader, NPDWriter
from trainer.fitting.selection import select, selecting
from trainer.fitting.split import hold_out, limit_pairs


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> NPDReader:
    """30 prompts with 3 seeds each; ``a`` prefers every target by the seed, ``b`` those of even prompts by 1."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    manifest = Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1)
    with NPDWriter(folder, manifest, worker="w") as writer:
        for i in range(30):
            for seed in range(3):
                scores = {"a": (0.0, float(seed)), "b": (float(i % 2), 1.0)}
                writer.add(torch.zeros(4, 2, 2), torch.ones(4, 2, 2), prompt=f"p{i}", seed=seed, scores=scores)
    return NPDReader(folder)


def keys(reader: NPDReader, indices: list[int]) -> set[tuple[int, int]]:
    return {(int(reader.records[i].key.prompt[1:]), reader.records[i].key.seed) for i in indices}


def test_every_scorer_has_to_prefer_the_target(reader):
    everything = {(i, seed) for i in range(30) for seed in range(3)}
    assert keys(reader, select(reader, ("none",), (0.0,))) == everything
    assert keys(reader, select(reader, ("a",), (0.0,))) == {(i, s) for i, s in everything if s > 0}
    assert keys(reader, select(reader, ("a",), (1.0,))) == {(i, s) for i, s in everything if s > 1}
    assert keys(reader, select(reader, ("a", "b"), (0.5,))) == {(i, s) for i, s in everything if s > 0 and i % 2 == 0}
    assert keys(reader, select(reader, ("a", "b"), (1.5, 0.0))) == {(i, 2) for i in range(0, 30, 2)}


@pytest.mark.parametrize(
    ("scorers", "margins", "words"),
    [
        (("a",), (5.0,), "None of 90 pairs"),
        (("a", "b"), (0.0, 0.0, 0.0), "3 margins came for 2 scorers"),
        (("c",), (0.0,), "no score by 'c': choose among a, b"),
        (("a",), (float("nan"),), "NaN"),
    ],
)
def test_wrong_selections_are_refused(reader, scorers, margins, words):
    with pytest.raises(InputError, match=words):
        select(reader, scorers, margins)


def test_what_several_scorers_scored_needs_a_choice(reader):
    assert selecting(reader, ["b"]) == ("b",)
    with pytest.raises(InputError, match="scored by a, b: say with --scorer which of them select, or none"):
        selecting(reader, None)


def test_datasets_without_scores_or_pairs_are_refused(tmp_path):
    manifest = Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1)
    with NPDWriter(tmp_path / "pairs", manifest, worker="w") as writer:
        pass
    with pytest.raises(InputError, match="has no pairs"):
        select(NPDReader(tmp_path / "pairs"), ("none",), (0.0,))
    with writer:
        writer.add(torch.zeros(4, 2, 2), torch.ones(4, 2, 2), prompt="p", seed=0)
    with pytest.raises(InputError, match="no scores: keep every pair with --scorer none"):
        select(NPDReader(tmp_path / "pairs"), ("a",), (0.0,))


@given(share=st.floats(0.001, 0.999), seed=st.integers(0, 5), indices=st.permutations(range(90)))
def test_no_prompt_is_in_both_halves(reader, share, seed, indices):
    training, validation = hold_out(reader, indices, share, seed)
    assert sorted(training + validation) == list(range(90))
    trained, held_out = ({reader.records[i].key.prompt for i in half} for half in (training, validation))
    assert trained
    assert held_out
    assert not trained & held_out
    assert abs(len(held_out) - 30 * share) <= 1
    assert set(validation) == set(hold_out(reader, range(90), share, seed)[1])


def test_the_seed_decides_what_is_held_out(reader):
    halves = {frozenset(hold_out(reader, range(90), 0.3, seed)[1]) for seed in range(5)}
    assert len(halves) == 5


def test_nothing_can_be_held_out_of_one_prompt(reader):
    one = [i for i, record in enumerate(reader.records) if record.key.prompt == "p0"]
    assert hold_out(reader, one, 0.0, 0) == (one, [])
    with pytest.raises(InputError, match="same prompt"):
        hold_out(reader, one, 0.1, 0)


def test_a_smaller_limit_takes_some_of_a_larger_one_s(reader):
    few, more = (limit_pairs(reader, range(90), limit, 0) for limit in (10, 40))
    assert (len(few), len(more)) == (10, 40)
    assert set(few) < set(more) < set(range(90))
    assert limit_pairs(reader, range(90), None, 0) == list(range(90))
