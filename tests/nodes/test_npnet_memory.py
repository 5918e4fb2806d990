"""Wherever ComfyUI's memory management leaves the weights, the net runs, and computes the same.

No GPU is needed: torch's fake tensors have a device but no numbers, and mixing two devices in one operation fails as on
a real one. What this cannot show is the numbers of a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import comfy.model_management
import comfy.ops
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.nodes.conditionings import conditioning
from tests.nodes.graphs import call
from tests.nodes.interfaces import listed_modules
from tests.nodes.npnets import save_tiny_npnet
from tests.nodes.sampling import GOLDEN, SEED, empty

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
LISTED = {  # what ComfyUI has moved: nothing (--novram), some (--lowvram), all modules it knows how to move
    "none": lambda modules: [],
    "half": lambda modules: modules[::2],
    "listed": lambda modules: modules,
}


@pytest.fixture
def pretend(pack) -> Iterator[FakeTensorMode]:
    """A mode in which GPU is a device. What the net caches in it is forgotten, for it has no numbers."""
    yield FakeTensorMode(allow_non_fake_inputs=True)
    for cached in (pack.npnet_core.swin.relative_position_index, pack.npnet_core.swin.shift_mask):
        cached.cache_clear()
    pack.npnet_core.golden.transport.cache_clear()


def movable(npnet: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that ComfyUI moves one by one under partial load."""
    return listed_modules(ModelPatcher(npnet, GPU, CPU))


def move(modules: list[torch.nn.Module]) -> None:
    """As `module.to(GPU)`, which fake parameters refuse."""
    for module in modules:
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(parameter.to(GPU), requires_grad=False)


def small(**changes) -> dict:
    shape = {"resolution": 16, "swin_size": 64, "swin_dim": 24, "swin_depths": (2, 2), "swin_heads": (1, 2)}
    return {**shape, "swin_window": 4, **changes}


@pytest.mark.parametrize("placed", LISTED)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("NPNetConfig", {}), ("NPNetConfig", small(misread_swin=False, fixed_signs=True)), ("UNetConfig", {})],
    ids=["published", "mended", "unet"],
)
@pytest.mark.parametrize("size", ["native", "1216x832"])
def test_no_parameter_is_left_behind(pack, pretend, placed, kind, shape, size):
    core = pack.npnet_core
    config = getattr(core.config, kind)(**shape)
    with pretend:
        npnet = core.architectures.new_net(config, comfy.ops.manual_cast).eval().requires_grad_(False)
        move(LISTED[placed](movable(npnet)))
        devices = {parameter.device for parameter in npnet.parameters()}
        whole = placed == "listed" and kind == "UNetConfig"  # it has no parameter that ComfyUI never moves
        assert devices == ({CPU} if placed == "none" else {GPU} if whole else {CPU, GPU})
        side = config.resolution
        x = torch.empty(1, 4, side, side) if size == "native" else torch.empty(1, 4, 104, 152)
        prompt = torch.empty(1, config.prompt_tokens, config.prompt_dim, device=GPU)
        on_gpu = npnet(torch.empty(1, 4, side, side, device=GPU), prompt)
        golden = core.golden.golden_pass(npnet, x, prompt, torch.Generator())
    assert (on_gpu.device, on_gpu.dtype) == (GPU, torch.float32)
    assert (golden.device, golden.shape) == (CPU, x.shape)


def test_comfyui_never_moves_these(pack):
    """The trap that the test above is for: parameters of modules that have modules of their own."""
    with torch.device("meta"):
        npnet = pack.npnet_core.model.NPNet(pack.npnet_core.config.NPNetConfig(), comfy.ops.manual_cast)
    moved = {id(parameter) for module in movable(npnet) for parameter in module.parameters()}
    left = {name.rpartition(".")[2] for name, parameter in npnet.named_parameters() if id(parameter) not in moved}
    assert left == {"alpha", "beta", "relative_position_bias_table"}


def test_pretended_devices_complain(pack, pretend):
    with pretend:
        npnet = pack.npnet_core.model.NPNet(pack.npnet_core.config.NPNetConfig(**small()), torch.nn)
        prompt = torch.empty(1, 77, 2048, device=GPU)
        with pytest.raises(RuntimeError, match="two devices"):
            npnet(torch.empty(1, 4, 16, 16, device=GPU), prompt)


# ---- with numbers, on the device that is there -----------------------------------------------------------------------


@pytest.fixture
def noise_of(pack, comfy_base):
    """(NPNET, a function that makes golden noise with it)."""
    (npnet,) = call("NPNetLoad", npnet_name=save_tiny_npnet(pack, comfy_base))
    (source,) = call("RandomNoise", noise_seed=SEED)
    (noise,) = call("NPNetNoise", npnet=npnet, noise=source, conditioning=conditioning("sdxl", 1), **GOLDEN)
    return npnet, lambda: noise.generate_noise(empty(2))


@pytest.mark.parametrize("budget", [0.1, 50_000, 10**9])
def test_partial_load_changes_nothing(noise_of, budget):
    npnet, golden = noise_of
    before = golden()
    patcher = npnet.patcher
    patcher.unpatch_model(patcher.offload_device)
    patcher.patch_model(patcher.load_device, lowvram_model_memory=budget)
    assert patcher.model.model_lowvram == (budget < 10**9)
    assert torch.equal(golden(), before)


def test_weights_in_another_type_are_cast(noise_of):
    npnet, golden = noise_of
    before = golden()
    npnet.patcher.model.double()  # fp64 holds every fp32 number
    torch.testing.assert_close(golden(), before)
    npnet.patcher.model.bfloat16()
    rounded = golden()
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - before).abs().max() < 0.5


def test_comfyui_decides_and_may_unload(noise_of):
    npnet, golden = noise_of
    assert npnet.patcher.load_device == comfy.model_management.get_torch_device()
    assert npnet.patcher.offload_device == comfy.model_management.unet_offload_device()
    before = golden()
    assert npnet.patcher in comfy.model_management.loaded_models()
    comfy.model_management.unload_all_models()
    assert npnet.patcher not in comfy.model_management.loaded_models()
    assert torch.equal(golden(), before)
