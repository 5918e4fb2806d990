"""An adapter without its base model: the file, the formula with f given, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from npnet_core.adapter import SAME, Adapter, AdapterConfig, fingerprint, fingerprint_distance
from npnet_core.architectures import new_net
from npnet_core.checkpoint import load_npnet, read_npnet, save_npnet
from npnet_core.errors import InputError
from npnet_core.golden import golden_noise
from trainer.commands.inspect import describe_npnet

WEIGHTS = {"down.0.to_q.weight": (8, 6), "conv_in.weight": (6, 4, 3, 3)}
SMALL = {
    "resolution": 16,
    "prompt_tokens": 7,
    "prompt_dim": 12,
    "rank": 2,
    "weights": WEIGHTS,
    "output_shape": (4, 6, 3, 3),
    "t": 901.0,
    "fingerprint": {"conv_in.weight": (0.5, -1.0, 2.0)},
}
NOISE, PROMPT = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(0)), torch.ones(1, 7, 12)


def tripled(adapter: Adapter, noise: torch.Tensor) -> torch.Tensor:
    """An f that depends on the noise and on a tensor of the adapter."""
    return 3 * noise * (1 + adapter.tensor("conv_out.bias").sum())


@pytest.mark.parametrize("rank", [0, 2])
def test_the_file_holds_it_to_the_bit(tmp_path, rank):
    npnet, path = new_net(AdapterConfig(**SMALL | {"rank": rank})), tmp_path / "adapter.safetensors"
    with torch.no_grad():
        for parameter in npnet.parameters():
            parameter.normal_()
    save_npnet(npnet, path, {"npnet.base_model": "a base"})
    loaded = load_npnet(path)
    assert loaded.config == npnet.config
    assert loaded.metadata["npnet.base_model"] == "a base"
    assert all(torch.equal(value, npnet.state_dict()[name]) for name, value in loaded.state_dict().items())
    expected = {"unet.conv_out.weight", "unet.conv_out.bias"}
    if rank:
        expected |= {f"unet.{layer}.lora_{half}.weight" for layer in ("down.0.to_q", "conv_in") for half in "AB"}
        assert loaded.tensor("conv_in.lora_A.weight").shape == (2, 4, 3, 3)
        assert loaded.tensor("conv_in.lora_B.weight").shape == (6, 2, 1, 1)
    else:
        expected |= {f"unet.{name}.diff" for name in WEIGHTS}
    assert set(read_npnet(path).tensors) == expected
    assert describe_npnet(path)["told"] == "sigma 1, t 901, guidance 1 where the network is told one"


def test_golden_is_noise_plus_f():
    npnet = new_net(AdapterConfig(**SMALL))
    golden = golden_noise(npnet, NOISE, PROMPT, predictor=tripled)
    assert torch.equal(golden, NOISE + 3 * NOISE)
    assert not golden.requires_grad
    assert torch.equal(
        golden_noise(npnet, NOISE, PROMPT, predictor=tripled, strength=0.5), torch.lerp(NOISE, golden, 0.5)
    )
    half = golden_noise(npnet, NOISE.half(), PROMPT, predictor=tripled)
    assert half.dtype == torch.float16
    with pytest.raises(InputError, match="NaN or infinite"):
        golden_noise(npnet, NOISE, PROMPT, predictor=lambda npnet, x: x / 0)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_without_the_base_model_it_is_refused(strength):
    with pytest.raises(
        InputError, match="works inside its base model's own network, and came without it: give the base"
    ):
        golden_noise(new_net(AdapterConfig(**SMALL)), NOISE, PROMPT, strength=strength)


def test_noise_of_another_model_is_refused():
    with pytest.raises(InputError, match=r"\[batch, 4, height, width\] was expected"):
        golden_noise(new_net(AdapterConfig(**SMALL)), NOISE.repeat(1, 4, 1, 1), PROMPT, predictor=tripled)


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": -1},
        {"rank": 2.5},
        {"weights": {"norm.weight": (8,)}},
        {"weights": {"a.weight": (2**30, 4)}},
        {"weights": {"a..weight": (8, 4)}},
        {"weights": {"a.weight": (2**17, 2**18)}},
        {"weights": {"a.weight": 7}},
        {"weights": [["a.weight"]]},
        {"output": ""},
        {"output_shape": (4,)},
        {"sigma": float("nan")},
        {"t": "901"},
        {"fingerprint": {"a": ["x"]}},
        {"channels": 0},
    ],
)
def test_configs_that_make_no_adapter_are_refused(changes):
    with pytest.raises(InputError, match=r": |make no table"):
        AdapterConfig(**SMALL | changes)


@pytest.mark.parametrize("name", ["training.weight", "forward.weight", "conv_out.weight.weight"])
def test_names_that_no_module_has_are_refused(name):
    with pytest.raises(InputError, match="is the name of no weight"):
        new_net(AdapterConfig(**SMALL | {"rank": 0, "weights": WEIGHTS | {name: (8, 4)}}))


def test_a_file_that_is_not_whole_is_refused(tmp_path):
    npnet, path = new_net(AdapterConfig(**SMALL)), tmp_path / "adapter.safetensors"
    del npnet._modules["unet"]._modules["conv_in"]
    save_npnet(npnet, path)
    with pytest.raises(InputError, match=r"2 missing \(unet.conv_in.lora_A.weight, unet.conv_in.lora_B.weight\)"):
        load_npnet(path)


def test_a_fingerprint_outlives_quantisation_and_tells_models_apart():
    weights = {f"layer.{i}.weight": torch.randn(32, 16, generator=torch.Generator().manual_seed(i)) for i in range(50)}
    config = AdapterConfig(**SMALL | {"fingerprint": fingerprint(weights, weights.__getitem__)})
    assert json.loads(json.dumps(config.to_dict()))["fingerprint"].keys() == config.fingerprint.keys()
    assert 8 < len(config.fingerprint) <= 16
    assert fingerprint_distance(config, weights.__getitem__) == 0
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        assert 0 < fingerprint_distance(config, lambda name, dtype=dtype: weights[name].to(dtype)) < SAME
    assert fingerprint_distance(config, lambda name: weights[name] + 0.1 * torch.randn(32, 16)) > SAME
