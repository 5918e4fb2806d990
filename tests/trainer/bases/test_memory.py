"""What a base model's weights take, and whose turn it is where not all of them fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from npnet_core.adapter import Adapter
from npnet_core.errors import InputError
from tests import tiny_pipelines
from trainer.bases import (
    PARTS,
    Schedule,
    adapter_config,
    decode,
    encode,
    golden,
    initial_noise,
    levels,
    load_base,
    sample,
    weight_bytes,
    with_sibling,
)
from trainer.bases.memory import fit_together, weights_to

PROMPTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("memory")
    return [tiny_pipelines.tiny_z_image(root / name) for name in ("turbo", "base")]


def images(base):
    prompts = encode(base, PROMPTS)
    return decode(base, sample(base, initial_noise(base, [1, 2], 64, 64), prompts, Schedule("euler", 2), 1.0))


def test_bytes_of_every_part(folders):
    """Those of the files, but for their headers; a sibling brings its network."""
    base = load_base(folders[0], distilled=True)
    weights = weight_bytes(base)
    for part, name in (("text", "text_encoder"), ("network", "transformer"), ("vae", "vae")):
        stored = sum(path.stat().st_size for path in (folders[0] / name).glob("*.safetensors"))
        assert weights[part] == pytest.approx(stored, rel=0.1)
    both = weight_bytes(with_sibling(base, folders[1]))
    assert both == weights | {"network": 2 * weights["network"]}


def test_weights_leave_room():
    assert fit_together([4, 2, 1], 10)
    assert not fit_together([4, 2, 1], 9)


def test_weights_that_do_not_fit_alone_are_said(folders):
    both = with_sibling(load_base(folders[0], distilled=True), folders[1])
    with (
        pytest.raises(InputError, match=r"of cpu does not hold the network of .*turbo, with .*base's network \(0\.0"),
        weights_to(both, ["network"]),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_turns_change_no_image(folders):
    base = load_base(folders[0])
    assert torch.equal(images(dataclasses.replace(base, in_turns=True)), images(base))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_one_part_at_a_time_is_on_a_gpu(folders):
    base = dataclasses.replace(load_base(folders[0], device="cuda"), in_turns=True)

    def there():
        return [part for part in PARTS if base.modules(part)[0].device.type == "cuda"]

    prompts = encode(base, PROMPTS)
    assert there() == list(PARTS)  # where they were, nobody had to go
    for part in PARTS:
        for module in base.modules(part):
            module.cpu()
    prompts = encode(base, PROMPTS)
    assert there() == ["text"]
    latents = sample(base, initial_noise(base, [1, 2], 64, 64), prompts, Schedule("euler", 2), 1.0)
    assert there() == ["network"]
    decode(base, latents)
    assert there() == ["vae"]
    level = levels(base, Schedule("euler", 1))[0]
    npnet = Adapter(adapter_config(base, 4, level, 1.0, 8)).to("cuda")
    golden(base, npnet, initial_noise(base, [1, 2], 64, 64), encode(base, PROMPTS))
    assert there() == ["network"]
