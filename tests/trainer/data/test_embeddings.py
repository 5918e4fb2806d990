"""Prompt embeddings beside a dataset, encoded by a real text encoder."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import pytest
import safetensors
import torch

from npnet_core.errors import InputError
from npnet_core.prompt_form import canonical
from npnet_core.tensorfile import write_tensors
from tests.tiny_pipelines import tiny_sd, tiny_z_image
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


def lengths(*counts: int, dim: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of so many tokens, with infinite values where there is padding, and their mask."""
    mask = torch.arange(max(counts) + 3) < torch.tensor(counts)[:, None]
    embeds = torch.randn(*mask.shape, dim, generator=torch.Generator().manual_seed(0))
    return torch.where(mask[..., None], embeds, torch.inf), mask


def test_tokens_are_kept_and_padding_is_not(tmp_path):
    embeds, mask = lengths(2, 5, 3)
    path = store_embeddings(tmp_path, "b", PROMPTS, embeds, prompt_mask=mask)
    with safetensors.safe_open(path, "pt") as file:
        assert file.get_tensor("prompt_embeds").shape == (2 + 5 + 3, 4)
        assert file.metadata()["version"] == "2"
    there = Embeddings(tmp_path, "b")
    assert there.shape == (5, 4)
    assert there.mask(PROMPTS).tolist() == mask[:, :5].tolist()
    assert torch.equal(there.batch(PROMPTS)[mask[:, :5]], embeds[mask].half())
    assert not there.batch(PROMPTS)[~mask[:, :5]].any()
    for prompts, longest in ((PROMPTS[:1], 2), ([PROMPTS[2], PROMPTS[0]], 3)):
        assert there.batch(prompts).shape == (len(prompts), longest, 4)
    assert there.mask([PROMPTS[1], PROMPTS[1]]) is None  # nothing is filled up


def test_what_fp16_cannot_hold_is_kept_in_bf16(tmp_path):
    embeds = torch.tensor([3.0, 1e9]).view(2, 1, 1).expand(2, 2, 4)
    store_embeddings(tmp_path, "b", PROMPTS[:2], embeds)
    store_embeddings(tmp_path, "b", PROMPTS[2:], embeds[:1])
    there = Embeddings(tmp_path, "b")
    torch.testing.assert_close(there.batch(PROMPTS)[:, 0, 0].float(), torch.tensor([3, 1e9, 3]), rtol=2**-8, atol=0)
    assert there.mask(PROMPTS) is None


def test_what_fp16_holds_without_a_mask_is_a_file_of_0_1_0(tmp_path):
    """Which that version reads, too."""
    path = store_embeddings(tmp_path, "b", PROMPTS, torch.ones(3, 2, 4), "fingerprint")
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata().keys() == {"base", "fingerprint", "prompts"}
        assert list(file.keys()) == ["prompt_embeds"]
        assert file.get_tensor("prompt_embeds").shape == (3, 2, 4)


def test_z_images_prompts_are_stored_as_nets_see_them(tmp_path, caplog):
    caplog.set_level("INFO")
    base = str(tiny_z_image(tmp_path / "base"))
    encode(tmp_path, base, PROMPTS, family="z-image")
    expected = bases.encode(bases.load_base(base), PROMPTS)
    embeds, mask = canonical("z-image", expected.prompt_embeds, expected.prompt_mask)
    there = Embeddings(tmp_path, base)
    assert torch.equal(there.batch(PROMPTS), embeds.half())
    assert torch.equal(there.mask(PROMPTS), mask)
    assert re.search(r"3 prompts are encoded: about .* GB in", caplog.text)


def test_files_that_no_version_writes(tmp_path):
    embeds, mask = lengths(2, 5, 3)
    path = store_embeddings(tmp_path, "b", PROMPTS, embeds, prompt_mask=mask)
    with safetensors.safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for change in (
        {"lengths": torch.tensor([2, 5])},
        {"lengths": torch.tensor([2, 8, 0])},
        {"lengths": torch.tensor([2.0, 5.0, 3.0])},
        {"prompt_embeds": tensors["prompt_embeds"].float()},
    ):
        write_tensors(path, tensors | change, metadata)
        with pytest.raises(InputError, match="is damaged"):
            Embeddings(tmp_path, "b")
    write_tensors(path, tensors, metadata | {"version": "3"})
    with pytest.raises(InputError, match="newer version: update"):
        Embeddings(tmp_path, "b")


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
    with pytest.raises(InputError, match="'b' has NaN or infinite values"):
        store_embeddings(tmp_path, base, ["a", "b"], torch.tensor([1.0, torch.nan]).view(2, 1, 1))
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
