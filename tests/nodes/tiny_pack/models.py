"""ComfyUI's own diffusion models and VAE, small and with seeded random weights.

They are built below the checkpoint loader, which recognises a model by its published sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.supported_models
import torch
from comfy.model_base import SDXL, BaseModel, HunyuanDiT, ModelType
from comfy.model_patcher import ModelPatcher
from comfy.taesd.taesd import TAESD

SDXL_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": (1, 2),
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "use_linear_in_transformer": True,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
    "use_checkpoint": False,
    "dtype": torch.float32,
}
HUNYUAN_DIT = {
    "image_model": "hydit",
    "hidden_size": 64,
    "depth": 4,  # the first block feeds the last one's skip connection
    "num_heads": 4,
    "dtype": torch.float32,
}


@contextmanager
def with_weights() -> Iterator[None]:
    """Layers of comfy.ops have weights from the start; with dynamic memory on they would wait for a file's."""
    memory = getattr(comfy, "memory_management", None)
    if memory is None or not memory.aimdo_enabled:
        yield
        return
    memory.aimdo_enabled = False
    try:
        yield
    finally:
        memory.aimdo_enabled = True


def seed_parameters(module: torch.nn.Module, seed: int, gain: float) -> None:
    """Fill every parameter: comfy.ops leaves them uninitialised, and a zeroed last layer would hide guidance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain / fan_in**0.5)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def tiny_patcher(model: BaseModel, seed: int, gain: float = 0.5) -> ModelPatcher:
    seed_parameters(model.diffusion_model, seed, gain)
    return ModelPatcher(
        model.eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


@with_weights()
def tiny_sdxl(seed: int = 0, model_type: ModelType = ModelType.EPS) -> ModelPatcher:
    """MODEL: SDXL's UNet, latents and conditioning (2048 wide, pooled 1280) with 2.4 M parameters.

    `model_type` is EPS, V_PREDICTION, V_PREDICTION_EDM, EDM or FLOW of `comfy.model_base.ModelType`.
    """
    config = comfy.supported_models.SDXL(SDXL_UNET)
    config.unet_config["num_head_channels"] = 32
    config.set_inference_dtype(torch.float32, None)
    return tiny_patcher(SDXL(config, model_type=model_type, device="cpu"), seed)


@with_weights()
def tiny_hunyuan_dit(seed: int = 0) -> ModelPatcher:
    """MODEL: HunyuanDiT 1.2's transformer, 64 wide and 4 blocks deep, reading BERT (1024) and mT5 (2048)."""
    config = comfy.supported_models.HunyuanDiT(HUNYUAN_DIT)
    config.set_inference_dtype(torch.float32, None)
    return tiny_patcher(HunyuanDiT(config, device="cpu"), seed)


@with_weights()
def tiny_controlnet() -> comfy.controlnet.ControlNet:
    """CONTROL_NET: a ControlNet for the tiny SDXL UNet, with random weights."""
    config = {
        k: v
        for k, v in SDXL_UNET.items()
        if k not in ("out_channels", "transformer_depth_output", "use_temporal_attention")
    }
    net = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, num_head_channels=32, operations=comfy.ops.manual_cast, device="cpu"
    )
    seed_parameters(net, seed=5, gain=0.5)
    return comfy.controlnet.ControlNet(net.eval(), load_device=comfy.model_management.get_torch_device())


def tiny_vae(seed: int = 0) -> comfy.sd.VAE:
    """VAE: TAESD with random weights, 8 pixels to a latent cell, 4 channels."""
    with with_weights():
        taesd = TAESD(latent_channels=4)
    seed_parameters(taesd, seed, gain=1.0)
    return comfy.sd.VAE(sd=taesd.state_dict())
