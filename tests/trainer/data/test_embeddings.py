"""Prompt embeddings beside a dataset, encoded by a real text encoder."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch

from npnet_core.errors import InputError
from tests.tiny_pipelines import tiny_sd
from trainer import bases
from trainer.data.embeddings import PROMPTS_PER_FILE, Embeddings, encode_missing, store_embeddings

PROMPTS = ["a red circle", "one blue square", "the green circle left of a red square"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return str(tiny_sd(tmp_path_factory.mktemp("base")))


def encode(dataset: Path, base: str, prompts: list[str], **changes) -> None:
    encode_missing(dataset, base, prompts, **{"family": "sd", "device": torch.device("cpu")} | changes)


def text_encoders() -> list:
    from transformers import CLIPTextModel

    gc.collect()
    return [each for each in gc.get_objects() if type(each) is CLIPTextModel]


def test_each_prompt_is_encoded_as_the_base_model_does(tmp_path, base):
    before = len(text_encoders())
    encode(tmp_path, base, PROMPTS + PROMPTS)
    assert len(text_encoders()) == before  # the encoder has left memory

    embeddings = Embeddings(tmp_path, base)
    expected = bases.encode(bases.load_base(base), PROMPTS).prompt_embeds
    assert torch.equal(embeddings.batch(PROMPTS), expected.half())
    assert embeddings.shape == expected.shape[1:]
    assert len(list(embeddings.folder.iterdir())) == 1


def test_what_is_there_is_not_encoded_again(tmp_path, base):
    """A prompt with an embedding of our own keeps it; with all there, no base model is needed."""
    encode(tmp_path, base, PROMPTS[:1])
    there = Embeddings(tmp_path, base)
    (fingerprint,) = there.fingerprints
    ours = torch.ones(1, *there.shape)
    store_embeddings(tmp_path, base, PROMPTS[1:2], ours, fingerprint)
    encode(tmp_path, base, PROMPTS)
    assert torch.equal(Embeddings(tmp_path, base).batch(PROMPTS[1:2]), ours.half())

    store_embeddings(tmp_path, "gone", PROMPTS, torch.ones(3, 2, 4))
    encode(tmp_path, "gone", PROMPTS)
    assert Embeddings(tmp_path, "gone").shape == (2, 4)
    assert Embeddings(tmp_path, base).shape == there.shape  # each base model has its own


def test_names_that_begin_with_a_dot_are_others(tmp_path):
    store_embeddings(tmp_path, "b", PROMPTS, torch.ones(3, 2, 4))
    (file,) = Embeddings(tmp_path, "b").folder.iterdir()
    file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")
    assert Embeddings(tmp_path, "b").shape == (2, 4)


def test_processes_share_the_work(tmp_path, base):
    encode(tmp_path, base, PROMPTS, share=(0, 2))
    first = {prompt for prompt in PROMPTS if prompt in Embeddings(tmp_path, base)}
    encode(tmp_path / "other", base, PROMPTS, share=(1, 2))
    second = {prompt for prompt in PROMPTS if prompt in Embeddings(tmp_path / "other", base)}
    assert first | second == set(PROMPTS)
    assert not first & second


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_they_are_mapped_not_read(tmp_path):
    prompts = [str(i) for i in range(PROMPTS_PER_FILE)]
    store_embeddings(tmp_path, "b", prompts, torch.randn(len(prompts), 77, 2048))  # 40 MB

    def resident() -> int:
        return sum(
            int(line.split()[1])
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith(("RssAnon", "RssFile"))
        )

    before = resident()
    embeddings = Embeddings(tmp_path, "b")
    embeddings.batch(prompts[:4])
    assert resident() - before < 10_000


def test_wrong_input(tmp_path, base):
    with pytest.raises(InputError, match="of family sd and the dataset was made with sdxl"):
        encode(tmp_path, base, PROMPTS, family="sdxl")
    with pytest.raises(InputError, match="no base model nowhere"):
        encode(tmp_path, "nowhere", PROMPTS)
    with pytest.raises(InputError, match="'b' has NaN or values too large for fp16"):
        store_embeddings(tmp_path, base, ["a", "b"], torch.tensor([1.0, 1e9]).view(2, 1, 1))
    store_embeddings(tmp_path, base, ["a"], torch.ones(1, 2, 4), "of other weights")
    with pytest.raises(InputError, match="no longer"):
        encode(tmp_path, base, PROMPTS)
    store_embeddings(tmp_path, base, ["b"], torch.ones(1, 2, 4), "of still others")
    with pytest.raises(InputError, match="different base models"):
        Embeddings(tmp_path, base)
    for path in (tmp_path / "embeddings").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"is damaged .*delete it"):
        Embeddings(tmp_path, base)
