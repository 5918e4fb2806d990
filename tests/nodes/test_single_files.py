"""Checkpoints as ComfyUI saves them, with what it reads in them: load_base honours or refuses the same."""

from __future__ import annotations

import comfy.lora
import comfy.supported_models
import pytest
import torch
from safetensors.torch import load_file, save_file

from npnet_core.errors import InputError
from tests.nodes.test_bases import checkpoint, comfyui_parts, config_folder
from trainer.bases import levels, load_base
from trainer.bases.schedules import Schedule


@pytest.fixture(scope="module", params=["sdxl", "sd1"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def parts(kind):
    return comfyui_parts(kind)


@pytest.fixture(scope="module")
def config(kind, tmp_path_factory):
    return config_folder(kind, tmp_path_factory.mktemp(kind) / "config")


@pytest.fixture(scope="module")
def tensors(parts):
    return checkpoint(*parts)


@pytest.fixture
def load(tensors, config, tmp_path):
    """`load({"v_pred": …})`: the checkpoint with more in it, or less, as load_base reads it."""

    def load(more=None, without=(), **options):
        kept = {key: value for key, value in tensors.items() if not key.startswith(tuple(without))}
        save_file(kept | (more or {}), tmp_path / "model.safetensors")
        return load_base(tmp_path / "model.safetensors", config=config, **options)

    return load


@pytest.mark.parametrize("kind", ["sdxl"], indirect=True)
@pytest.mark.parametrize("markers", [(), ("v_pred",), ("v_pred", "ztsnr")])
def test_markers_say_what_comfyui_reads_in_them(load, markers):
    more = {marker: torch.zeros(0) for marker in markers}
    theirs = comfy.supported_models.SDXL({})
    kind = theirs.model_type(more, "").name
    base = load(more)
    assert base.prediction == {"EPS": "epsilon", "V_PREDICTION": "v_prediction"}[kind]
    noisiest = levels(base, Schedule("ddim", 10, "trailing"))[0]
    assert (noisiest.alpha == 0) == theirs.sampling_settings.get("zsnr", False)


def test_all_of_a_checkpoint_is_read(load):
    """Nothing that ComfyUI saves counts as left over."""
    load()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model.diffusion_model.middle_block.3.weight": torch.zeros(1234)}, "middle_block.3"),
        ({"first_stage_model.more.weight": torch.zeros(1234)}, "first_stage_model.more.weight"),
        ({"control_model.input_blocks.0.0.weight": torch.zeros(3)}, "control_model"),
        ({"conditioner.embedders.2.weight": torch.zeros(3)}, "conditioner.embedders.2"),
        ({"some_new_marker": torch.zeros(0)}, "some_new_marker"),
    ],
)
def test_weights_that_nothing_reads_are_refused(load, more, message):
    with pytest.raises(InputError, match=rf"has no place for \({message}|has no place for .*{message}"):
        load(more)


@pytest.mark.parametrize(
    ("without", "lacking"),
    [
        (["first_stage_model."], "autoencoder"),
        (["conditioner.", "cond_stage_model."], "text encoder"),
        (["first_stage_model.", "conditioner.", "cond_stage_model."], "autoencoder and no text encoder"),
    ],
)
def test_a_file_of_some_parts_is_no_checkpoint(load, without, lacking):
    """The parts of the config's folder are another model's."""
    with pytest.raises(InputError, match=f"holds no {lacking}: name a whole checkpoint"):
        load(without=without)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("model.diffusion_model.", "its UNet or autoencoder"),
        ("first_stage_model.", "its UNet or autoencoder"),
        (("conditioner.embedders.0", "cond_stage_model"), r"its text_encoder \(.*self_attn"),
    ],
)
def test_a_weight_that_the_file_lacks(load, tensors, part, message):
    names = [
        key
        for key in tensors
        if key.startswith(part) and key.endswith(("fc1.weight", "conv_out.weight", "proj.weight"))
    ]
    with pytest.raises(InputError, match=f"lacks weights of {message}"):
        load(without=names[:1])


def test_a_unet_that_is_told_the_guidance_is_refused(load):
    with pytest.raises(InputError, match="is an LCM"):
        load({"model.diffusion_model.time_embed.cond_proj.weight": torch.zeros(128, 17)})


def test_what_training_leaves_behind_is_no_fault(load):
    load(
        {"alphas_cumprod": torch.zeros(1000), "model_ema.decay": torch.zeros(()), "denoiser.sigmas": torch.zeros(1000)}
    )


# LoRAs: the weights that ComfyUI's loader makes of the same file


def random_lora(kind, unet, encoders) -> dict[str, torch.Tensor]:
    """Kohya's names of ComfyUI's layers, which are the original layout's; every second one, each with its alpha."""
    tensors, weights = {}, {}
    for key, value in unet.items():
        if key.endswith(".weight") and value.ndim in (2, 4):
            weights["lora_unet_" + key.removesuffix(".weight").replace(".", "_")] = value
    for prefix, state in encoders.items():
        for key, value in state.items():
            if "layers" in key and key.endswith(".weight") and value.ndim == 2:
                weights[prefix + key.removesuffix(".weight").replace(".", "_")] = value
    for i, (name, weight) in enumerate(list(weights.items())[::2]):
        rank = 1 + i % 3
        tensors[f"{name}.lora_down.weight"] = 0.1 * torch.randn(rank, *weight.shape[1:])
        tensors[f"{name}.lora_up.weight"] = 0.1 * torch.randn(len(weight), rank, *(1 for _ in weight.shape[2:]))
        tensors[f"{name}.alpha"] = torch.tensor(0.5 + i % 5)
    return tensors


def patched(module, patches):
    """ComfyUI's weights with a LoRA's patches, as its ModelPatcher computes them."""
    state = {key: value.clone() for key, value in module.state_dict().items()}
    for key, patch in patches.items():
        state[key] = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], state[key], key)
    return state


@torch.no_grad()
def test_a_lora_is_added_as_comfyui_adds_it(kind, parts, load, config, tmp_path):
    model, clip, vae = parts
    torch.manual_seed(0)
    text = clip.cond_stage_model
    states = {"clip_l": text.clip_l.transformer.state_dict()} | (
        {"clip_g": text.clip_g.transformer.state_dict()} if kind == "sdxl" else {}
    )
    prefixes = {"clip_l": "lora_te1_" if kind == "sdxl" else "lora_te_", "clip_g": "lora_te2_"}
    encoders = {prefixes[name]: state for name, state in states.items()}
    lora = random_lora(kind, model.diffusion_model.state_dict(), encoders)
    save_file(lora, tmp_path / "lora.safetensors")
    ours = load(lora=tmp_path / "lora.safetensors")

    names = comfy.lora.model_lora_keys_unet(model, {}) | comfy.lora.model_lora_keys_clip(text, {})
    patches = comfy.lora.load_lora(load_file(tmp_path / "lora.safetensors"), names)
    assert len(patches) == sum(name.endswith(".alpha") for name in lora)
    before = [model.state_dict(), text.state_dict()]
    before = [{key: value.clone() for key, value in state.items()} for state in before]
    try:
        for module in (model, text):
            own = module.state_dict()
            module.load_state_dict(patched(module, {key: patch for key, patch in patches.items() if key in own}))
        save_file(checkpoint(model, clip, vae), tmp_path / "merged.safetensors")
    finally:
        for module, state in zip((model, text), before, strict=True):
            module.load_state_dict(state)
    theirs = load_base(tmp_path / "merged.safetensors", config=config)
    for part in ("text", "network"):
        for one, other in zip(ours.modules(part), theirs.modules(part), strict=True):
            for key, weight in other.state_dict().items():
                torch.testing.assert_close(one.state_dict()[key], weight, rtol=1e-4, atol=1e-5, msg=key)
