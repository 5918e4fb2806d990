"""Prompts encoded for every batch are what they are in files."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from npnet_core.checkpoint import load_npnet
from npnet_core.errors import InputError
from tests.tiny_fit import make_dataset, options
from tests.tiny_pipelines import tiny_sd, tiny_sdxl, tiny_z_image
from trainer import bases
from trainer.commands.fit import run
from trainer.data import encoder
from trainer.data.embeddings import Embeddings, encode_missing
from trainer.data.encoder import Encoder

PROMPTS = ["a red circle", "one blue square", "the green circle left of a red square"]
CPU = torch.device("cpu")


@pytest.mark.parametrize(("family", "build"), [("sd", tiny_sd), ("z-image", tiny_z_image)])
def test_what_files_would_hold(tmp_path, family, build):
    base = str(build(tmp_path / "base"))
    encode_missing(tmp_path, base, PROMPTS, family=family, device=CPU)
    files, anew = Embeddings(tmp_path, base), Encoder(base, family=family, device=CPU)
    assert anew.shape[1] == files.shape[1]
    for prompts in (PROMPTS, [PROMPTS[1]], [PROMPTS[2], PROMPTS[0], PROMPTS[2]]):
        (theirs, their_mask), (ours, our_mask) = files.tokens(prompts), anew.tokens(prompts)
        assert ours.dtype == theirs.dtype == torch.float16
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=2e-3)
        assert (our_mask is None) == (their_mask is None)
        assert our_mask is None or torch.equal(our_mask, their_mask)


def test_a_fit_without_a_cache_writes_none_and_says_what_that_costs(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(encoder, "MEASURED", 2)
    base = str(tiny_sdxl(tmp_path / "base"))
    data = make_dataset(tmp_path / "pairs", base=base, prompts=8)
    for out, cache in (("without", False), ("with", True)):
        if cache:
            assert not Embeddings(data, base).fingerprints
        run(options(data, tmp_path / out, epochs=2, batch=4, cache=cache))
    assert re.search(r"takes \S+ seconds of every batch \(\d prompts\) and \S+ GB of cpu", caplog.text)
    ours, theirs = (load_npnet(tmp_path / out / "npnet.safetensors").state_dict() for out in ("without", "with"))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-3, rtol=1e-3)


def test_nothing_but_text_encoders_is_held(tmp_path, monkeypatch):
    """Also on a GPU on which not even these leave room, where parts take turns otherwise."""
    base = bases.load_base(tiny_sd(tmp_path / "base"))
    in_turns = dataclasses.replace(base, in_turns=True)
    monkeypatch.setattr(bases, "load_base", lambda *args, **options: in_turns)
    embeds, _ = Encoder(base.source, family="sd", device=CPU).tokens(PROMPTS)
    assert embeds.shape[0] == len(PROMPTS)
    kinds = {
        part: {weight.device.type for m in base.modules(part) for weight in m.parameters()} for part in bases.PARTS
    }
    assert kinds == {"text": {"cpu"}, "network": {"meta"}, "vae": {"meta"}}


def test_another_family_is_refused(tmp_path):
    base = str(tiny_sd(tmp_path / "base"))
    with pytest.raises(InputError, match="of family sd and the dataset was made with z-image"):
        Encoder(base, family="z-image", device=CPU)
