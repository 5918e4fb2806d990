"""Every architecture keeps the same promises; the U-Net's parts against torch's."""

from __future__ import annotations

import json
import math

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.bases import BASES, net_for, sd35_medium
from npnet_core.architectures import GoldenNet, new_net
from npnet_core.checkpoint import load_npnet, read_npnet, save_npnet
from npnet_core.config import MENDED, Config, NPNetConfig, UNetConfig, narrow_prompt
from npnet_core.diagnostics import prompt_dependence
from npnet_core.errors import InputError
from npnet_core.flops import flops, net_flops
from npnet_core.golden import LONG_PROMPT, golden_noise
from npnet_core.npd import NPDReader
from npnet_core.unet import Convolution, CrossAttention
from tests.seeded import SMALL, Casting, difference
from tests.tiny_fit import BASE, make_dataset, options
from tests.trainer.fitting.test_fit import TORCHRUN, close, equal, finish, npnet_fit, stop_at, weights
from trainer.commands.fit import run
from trainer.commands.inspect import describe_npnet
from trainer.commands.options import save_config
from trainer.data.embeddings import Embeddings
from trainer.fitting.build_net import NetInputs, starting_net
from trainer.fitting.pair_batches import Batches
from trainer.fitting.settings import NetSettings

SMALL_UNET = {"resolution": 16, "prompt_tokens": 7, "prompt_dim": 12, "widths": (32, 64)}
FIT = {"npnet": {}, "unet": {"arch": "unet", "widths": (32, 32)} | dict.fromkeys(
    ("swin_size", "swin_dim", "swin_depths", "swin_heads", "swin_window")
)}  # fmt: skip

every = pytest.mark.parametrize("arch", FIT)  # an adapter is half its base model: test_adapter.py


def small(arch: str, **changes) -> Config:
    """16x16 latents, prompts of 7 tokens, 12 wide."""
    return NPNetConfig(**{**SMALL, **MENDED, **changes}) if arch == "npnet" else UNetConfig(**{**SMALL_UNET, **changes})


def random_net(arch: str, operations=nn, **changes) -> GoldenNet:
    """In eval mode; every weight is random, for a new net is the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        npnet = new_net(small(arch, **changes))
        with torch.no_grad():
            for parameter in npnet.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    if operations is nn:
        return npnet.eval()
    other = new_net(npnet.config, operations).eval()
    other.load_state_dict(npnet.state_dict())
    return other


def inputs(
    batch: int = 2, *, channels: int = 4, size: tuple[int, int] = (16, 16), tokens: int = 7
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, channels, *size, generator=generator),
        torch.randn(batch, tokens, 12, generator=generator),
    )


# --- the call


@every
@pytest.mark.parametrize("bf16", [False, True])
def test_a_new_net_is_the_identity_to_the_bit(arch, bf16):
    npnet, (noise, prompt) = new_net(small(arch)).eval(), inputs()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert torch.equal(npnet(noise, prompt), noise)


@every
@torch.no_grad()
def test_two_calls_are_bitwise_equal_and_leave_the_input_alone(arch):
    npnet, (noise, prompt) = random_net(arch), inputs()
    before = noise.clone(), prompt.clone()
    golden = npnet(noise, prompt)
    assert torch.equal(golden, npnet(noise, prompt))
    assert difference(golden, noise) > 0.01
    assert torch.equal(noise, before[0])
    assert torch.equal(prompt, before[1])


@every
@torch.no_grad()
def test_a_batch_is_its_images_one_by_one(arch):
    npnet, (noise, prompt) = random_net(arch), inputs(3)
    singles = torch.cat([npnet(noise[i : i + 1], prompt[i : i + 1]) for i in range(3)])
    assert difference(npnet(noise, prompt), singles) < 1e-5


@every
@pytest.mark.parametrize("channels", [4, 16, 64])
@pytest.mark.parametrize("size", [(16, 16), (24, 8), (13, 21), (33, 40), (1, 1)])
def test_golden_noise_takes_any_size(arch, channels, size):
    npnet, (noise, prompt) = random_net(arch, channels=channels), inputs(channels=channels, size=size)
    golden = golden_noise(npnet, noise, prompt)
    assert golden.shape == noise.shape
    assert golden.isfinite().all()
    assert difference(golden, noise) > 0.001
    assert torch.equal(golden[1:], golden_noise(npnet, noise[1:], prompt[1:]))
    assert torch.equal(golden_noise(new_net(npnet.config).eval(), noise, prompt), noise)


@every
@pytest.mark.parametrize("tokens", [1, 10, 77, 154])
@pytest.mark.parametrize("long_prompt", LONG_PROMPT)
def test_golden_noise_takes_any_number_of_tokens(arch, tokens, long_prompt):
    npnet, (noise, prompt) = random_net(arch), inputs(tokens=tokens)
    golden = golden_noise(npnet, noise, prompt, long_prompt=long_prompt)
    assert golden.isfinite().all()
    assert prompt_dependence(npnet, noise, prompt, prompt.flip(0)) > 0.01
    assert torch.equal(golden[:1], golden_noise(npnet, noise[:1], prompt[:1], long_prompt=long_prompt))


@every
@pytest.mark.parametrize(
    ("noise", "prompt"),
    [
        ((2, 9, 16, 16), (2, 7, 12)),
        ((4, 16, 16), (2, 7, 12)),
        ((2, 4, 16, 0), (2, 7, 12)),
        ((2, 4, 16, 16), (1, 7, 12)),
        ((2, 4, 16, 16), (2, 0, 12)),
        ((2, 4, 16, 16), (2, 7, 13)),
        ((2, 4, 16, 16), (7, 12)),
    ],
)
def test_other_shapes_are_refused(arch, noise, prompt):
    with pytest.raises(InputError, match=r"came to a net for .*: (use|give) "):
        random_net(arch)(torch.randn(noise), torch.randn(prompt))


@every
@torch.no_grad()
def test_weights_of_another_type_are_cast_where_they_are_used(arch):
    npnet, (noise, prompt) = random_net(arch, Casting), inputs()
    npnet.double()  # one parameter used as it is would make the result double, or fail
    result = npnet(noise, prompt)
    assert result.dtype == torch.float32
    assert difference(result, random_net(arch)(noise, prompt)) < 1e-5
    leaves = {type(module) for module in npnet.modules() if not list(module.children()) and list(module.parameters())}
    assert leaves == {Casting.Linear, Casting.LayerNorm}


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@torch.no_grad()
def test_devices_agree(arch):
    noise, prompt = inputs(size=(16, 16))
    expected = random_net(arch)(noise, prompt)
    result = random_net(arch).to("cuda")(noise.to("cuda"), prompt.to("cuda"))
    assert difference(result.cpu(), expected) < 1e-4


# --- prompts with padding


MASKS = torch.tensor([[1, 1, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]]).bool()


@every
@torch.no_grad()
def test_golden_noise_sees_nothing_of_padding(arch):
    npnet, (noise, prompt) = random_net(arch), inputs(3)
    golden = golden_noise(npnet, noise, prompt, MASKS)
    for filling in (0.0, 1e4, math.nan):
        filled = prompt.masked_fill(~MASKS[..., None], filling)
        assert torch.equal(golden, golden_noise(npnet, noise, filled, MASKS))
    for i, mask in enumerate(MASKS):
        assert torch.equal(golden[i : i + 1], golden_noise(npnet, noise[i : i + 1], prompt[i : i + 1, mask]))
    assert difference(golden, golden_noise(npnet, noise, prompt)) > 0.001
    one = golden_noise(npnet, noise, prompt[:1], MASKS[:1])
    assert torch.equal(one, golden_noise(npnet, noise, prompt[:1].expand(3, -1, -1), MASKS[:1]))
    every_mask = golden_noise(npnet, noise, prompt[:1], MASKS)
    assert torch.equal(every_mask, golden_noise(npnet, noise, prompt[:1].expand(3, -1, -1), MASKS))


@torch.no_grad()
def test_the_unet_of_a_padded_batch_is_that_of_its_tokens():
    npnet, (noise, prompt) = random_net("unet"), inputs(3)
    golden = npnet(noise, prompt, MASKS)
    assert torch.equal(golden, npnet(noise, prompt.masked_fill(~MASKS[..., None], 1e4), MASKS))
    assert difference(golden, golden_noise(npnet, noise, prompt, MASKS)) < 1e-5


@every
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (MASKS[:2].float(), r"mask of shape \[2, 7\] and type torch.float32 came, .*: give one"),
        (MASKS, r"mask of shape \[3, 7\] .*: give one"),
        (MASKS[:2, :6], r"mask of shape \[2, 6\] .*: give one"),
        (MASKS[:2] & False, "without any token came: give True"),
    ],
)
def test_masks_that_do_not_fit_are_refused(arch, mask, words):
    with pytest.raises(InputError, match=words):
        golden_noise(random_net(arch), *inputs(), mask)
    if arch == "unet" and mask.any():
        with pytest.raises(InputError, match=r"mask of shape .*: give one"):
            random_net(arch)(*inputs(), mask)


# --- the U-Net


@torch.no_grad()
def test_the_unet_is_given_size_and_prompt_as_they_are():
    npnet, (noise, prompt) = random_net("unet"), inputs(1, size=(13, 21), tokens=154)
    for long_prompt in LONG_PROMPT:
        assert torch.equal(golden_noise(npnet, noise, prompt, long_prompt=long_prompt), npnet(noise, prompt))


@torch.no_grad()
def test_the_unet_reads_every_token_at_every_pixel():
    npnet, (noise, prompt) = random_net("unet"), inputs(1, size=(9, 14), tokens=100)
    golden = npnet(noise, prompt)
    for token in (0, 50, 99):
        other = prompt.clone()
        other[:, token] = other[:, token].flip(-1)
        assert ((npnet(noise, other) - golden).abs() > 0).all()


@torch.no_grad()
def test_convolution_is_torchs():
    ours, x = Convolution(5, 3), torch.randn(2, 5, 6, 7)
    weight = ours.linear.weight.view(3, 3, 3, 5).permute(0, 3, 1, 2)  # [out, y, x, in] → torch's order
    expected = F.conv2d(x, weight, ours.linear.bias, padding=1)
    assert difference(ours(x.movedim(1, -1)).movedim(-1, 1), expected) < 1e-5


@torch.no_grad()
def test_cross_attention_is_torchs():
    torch.manual_seed(0)
    ours, theirs = CrossAttention(64, 12), nn.MultiheadAttention(64, 2, kdim=12, vdim=12, batch_first=True)
    theirs.in_proj_bias.zero_()
    theirs.q_proj_weight.copy_(ours.q.weight)
    for weight, part in zip((theirs.k_proj_weight, theirs.v_proj_weight), ours.kv.weight.chunk(2), strict=True):
        weight.copy_(part)
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x, prompt = torch.randn(2, 3, 5, 64), torch.randn(2, 7, 12)
    for mask in (None, MASKS[:2]):
        expected, _ = theirs(ours.norm(x).flatten(1, 2), prompt, prompt, None if mask is None else ~mask)
        answer = ours(x, prompt, None if mask is None else mask[:, None, None])
        assert difference(answer.flatten(1, 2), expected) < 1e-5


@pytest.mark.parametrize(
    "values",
    [
        {"widths": ()},
        {"widths": (48,)},
        {"widths": (32, 0)},
        {"widths": (32.0,)},
        {"blocks": 0},
        {"channels": 0},
        {"prompt_width": 0},
        {"prompt_width": 1.5},
    ],
)
def test_configs_that_make_no_unet_are_refused(values):
    with pytest.raises(InputError, match=": give "):
        UNetConfig(**{**SMALL_UNET, **values})


# --- files


@every
def test_a_file_holds_the_net_to_the_bit(arch, tmp_path):
    npnet, path = random_net(arch, family="mine"), tmp_path / "net.safetensors"
    save_npnet(npnet, path, {"npnet.base_model": "a base"})
    loaded = load_npnet(path)
    assert type(loaded) is type(npnet)
    assert loaded.config == npnet.config
    assert equal(loaded.state_dict(), npnet.state_dict())
    assert not loaded.training
    assert loaded.metadata["npnet.architecture"] == arch
    assert loaded.metadata["npnet.base_model"] == "a base"
    save_npnet(loaded, path)
    assert load_npnet(path).metadata == loaded.metadata
    assert equal(load_npnet(path).state_dict(), npnet.state_dict())
    rows = describe_npnet(path)
    assert rows["architecture"] == arch
    assert rows["parameters"].startswith(f"{sum(p.numel() for p in npnet.parameters()):,}")


def rewritten(path, tensors=lambda tensors: None, **metadata) -> None:
    """The file with other tensors or metadata, and a checksum that nobody can compare."""
    with safetensors.safe_open(path, "pt") as file:
        entries = file.metadata() | metadata
    del entries["modelspec.hash_sha256"]
    content = safetensors.torch.load_file(path)
    tensors(content)
    safetensors.torch.save_file(content, path, entries)


@every
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.popitem(), "1 missing"),
        (lambda tensors: tensors.update(stray=torch.zeros(1)), r"1 unexpected \(stray\)"),
        (lambda tensors: tensors.update({min(tensors): torch.zeros(3, 3, 3)}), "1 misshapen"),
    ],
)
def test_files_with_other_keys_are_refused(arch, change, words, tmp_path):
    path = tmp_path / "net.safetensors"
    save_npnet(random_net(arch), path)
    rewritten(path, change)
    with pytest.raises(InputError, match=words):
        load_npnet(path)


def test_files_without_a_name_have_the_published_architecture(tmp_path):
    path = tmp_path / "net.safetensors"
    save_npnet(random_net("npnet"), path)
    rewritten(path)
    with safetensors.safe_open(path, "pt") as file:
        entries = file.metadata()
    del entries["npnet.architecture"]
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, entries)
    assert load_npnet(path).config == small("npnet")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"npnet.architecture": "mamba"}, "'mamba' and this version knows npnet, unet, adapter: .* update"),
        ({"npnet.architecture": "npnet"}, "unknown entries blocks, widths"),
        ({"npnet.config": json.dumps({"widths": 5})}, "config that cannot be read"),
    ],
)
def test_files_of_unknown_architectures_are_refused(metadata, words, tmp_path):
    path = tmp_path / "net.safetensors"
    save_npnet(random_net("unet"), path)
    rewritten(path, **metadata)
    with pytest.raises(InputError, match=words):
        read_npnet(path)


@pytest.mark.parametrize("config", [small("npnet", family="mine"), small("unet"), small("unet", prompt_width=40)])
def test_a_config_survives_json(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("prompt_dim", "width"), [(768, None), (4096, None), (7680, 128), (15360, 64), (20480, 32), (30720, 32)]
)
def test_wide_prompts_get_a_narrow_first_projection(prompt_dim, width):
    assert narrow_prompt(prompt_dim) == width
    inputs = NetInputs("mine", 16, 8, 5, prompt_dim)
    npnet = starting_net(NetSettings(arch="unet", widths=(32,)), inputs, seed=0)
    assert npnet.prompt_linear.weight.shape == (width or 32, prompt_dim)
    with torch.no_grad():
        golden = npnet(torch.randn(1, 16, 8, 8), torch.randn(1, 5, prompt_dim))
    assert golden.shape == (1, 16, 8, 8)


def test_operations_are_counted_from_shapes():
    """A net of one level and one block, by hand: a product of [n, a] and [a, b] is 2nab."""
    pixels, dim, tokens, wide = 64, 32, 5, 12
    config = UNetConfig("mine", 4, 16, tokens, wide, widths=(dim,))
    products = [
        (tokens, wide, dim),
        (pixels, 9 * 16, dim),
        (pixels, dim, dim),
        (tokens, dim, 2 * dim),
        (pixels, dim, tokens),
        (pixels, tokens, dim),
        (pixels, dim, dim),
        (pixels, 9 * dim, 2 * dim),
        (pixels, 2 * dim, dim),
        (pixels, 9 * dim, 16),
    ]
    assert net_flops(config) == sum(2 * n * a * b for n, a, b in products)
    with sdpa_kernel(SDPBackend.MATH):  # of the CPU's own kernel torch counts nothing
        assert net_flops(small("npnet")) == flops(lambda: random_net("npnet")(*inputs(1)))


def test_a_net_is_small_beside_its_base():
    """Of these bases SDXL alone takes fewer operations than the one here, two thirds, as the benchmark prints."""
    with torch.device("meta"), torch.no_grad():
        prediction = flops(sd35_medium())
    for base in BASES:
        assert net_flops(net_for(base)) <= min(10e9, 0.02 * prediction)


def test_a_config_says_nothing_of_a_first_projection_as_wide_as_ever():
    """So that 0.1.0, which refuses entries that it does not know, reads the file."""
    assert "prompt_width" not in UNetConfig().to_dict()


# --- training


@every
@pytest.mark.parametrize("bf16", [False, True])
def test_every_parameter_learns(arch, bf16):
    npnet, (noise, prompt) = random_net(arch).train(), inputs()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        golden = npnet(noise, prompt)
    (golden.float() - noise.flip(-1)).square().mean().backward()
    still = [name for name, p in npnet.named_parameters() if not (p.grad.isfinite().all() and p.grad.abs().max() > 0)]
    assert not still


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def several_sizes(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "pairs", sizes=((8, 8), (6, 10), (9, 7)))


@every
def test_fit_learns_a_shift_from_the_prompt(arch, tmp_path):
    """From one token: the U-Net takes the order of tokens from their embeddings, and random ones do not tell it."""
    data = make_dataset(tmp_path / "pairs", prompts=100, tokens=1)
    changes = {"scorer": ("none",), "validation": 0.2, "epochs": 8, "schedule": "cosine", "clip": 1.0}
    run(options(data, tmp_path / "run", **FIT[arch] | changes, lr=0.04 if arch == "npnet" else 4e-3))
    npnet = load_npnet(tmp_path / "run" / "npnet.safetensors")
    assert npnet.config.architecture == arch
    assert (npnet.config.resolution, npnet.config.prompt_tokens, npnet.config.prompt_dim) == (8, 1, 8)
    assert json.loads(npnet.metadata["npnet.validation"])["validation_explained"] > 0.5


@every
def test_going_on_gives_the_same_weights_to_the_bit(arch, dataset, tmp_path):
    settings = FIT[arch] | dict(ema=0.9, clip=0.1, warmup=3, accumulate=2, batch=4, epochs=6, workers=2)
    run(options(dataset, tmp_path / "whole", **settings))
    for step in (2, 11):
        watch = stop_at(step, tmp_path / "parts" / "log.jsonl")
        with pytest.raises(KeyboardInterrupt):
            run(options(dataset, tmp_path / "parts", **settings))
        watch.join()
    run(options(dataset, tmp_path / "parts", **settings))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@every
def test_fit_runs_in_bf16(arch, dataset, tmp_path):
    run(options(dataset, tmp_path / "run", **FIT[arch], precision="bf16"))
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


def test_the_unet_sees_every_pair_at_its_own_size(several_sizes):
    reader = NPDReader(several_sizes)
    config = UNetConfig(prompt_tokens=3, prompt_dim=8, widths=(32,))
    batches = Batches(reader, Embeddings(several_sizes, BASE), config, torch.device("cpu")).by_size(range(10))
    assert {tuple(batch.noise.shape[2:]) for batch in batches} == {(8, 8), (6, 10), (9, 7)}
    assert sorted(i for batch in batches for i in batch.indices) == list(range(10))
    for batch in batches:
        for i, noise, target in zip(batch.indices, batch.noise, batch.target, strict=True):
            source = [side.float() for side in reader[i]]
            assert torch.equal(noise, source[0])
            assert torch.equal(target, source[1])


def test_sizes_and_batches_may_share_a_step(several_sizes, tmp_path):
    settings = FIT["unet"] | {"epochs": 10, "clip": 1.0}
    run(options(several_sizes, tmp_path / "one", **settings))
    run(options(several_sizes, tmp_path / "four", **settings, batch=4, accumulate=4))
    assert close(weights(tmp_path / "one"), weights(tmp_path / "four"))


@pytest.mark.long
def test_sizes_and_processes_may_share_a_step(several_sizes, tmp_path):
    settings = FIT["unet"] | {"epochs": 10, "clip": 1.0}
    run(options(several_sizes, tmp_path / "one", **settings))
    save_config(options(several_sizes, tmp_path / "two", **settings, batch=8), tmp_path / "two.toml")
    finish(npnet_fit(tmp_path / "two.toml", *TORCHRUN))
    assert close(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_a_unet_goes_on_with_prompts_of_another_width(dataset, tmp_path):
    run(options(dataset, tmp_path / "first", **FIT["unet"]))
    other = make_dataset(tmp_path / "other", tokens=5, dim=6)
    unshaped = dict.fromkeys(FIT["unet"])
    first = tmp_path / "first" / "npnet.safetensors"
    run(options(other, tmp_path / "second", **unshaped, init=first, lr=0.0))
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    changed = {
        key for key in before if before[key].shape != after[key].shape or not torch.equal(before[key], after[key])
    }
    assert changed <= {f"prompt_{part}.{end}" for part in ("norm", "linear") for end in ("weight", "bias")}
    assert load_npnet(tmp_path / "second" / "npnet.safetensors").config.prompt_dim == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": "unet"}, "--swin-size, .* of the architecture unet does not have"),
        (FIT["unet"] | {"drop_path": 0.0}, "--drop-path came"),
        (FIT["unet"] | {"published_quirks": True}, "--published-quirks came"),
        (FIT["unet"] | {"without": ("svd",)}, "--without came"),
        ({"widths": (32,)}, "--widths came, .* of the architecture npnet does not have"),
        (FIT["unet"] | {"widths": (48,)}, "heads of 32"),
    ],
)
def test_flags_of_another_architecture_are_refused(changes, words, dataset, tmp_path):
    with pytest.raises(InputError, match=words):
        run(options(dataset, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
