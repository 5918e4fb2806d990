"""What a single file says of itself, by its keys, its metadata and its types; whole ones are tried in tests/nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from npnet_core.errors import InputError
from tests import tiny_pipelines
from trainer.bases import load_base
from trainer.bases.single_file import UNUSED, check_weights, scheduler_settings

FILE = Path("model.safetensors")
V = {"prediction_type": "v_prediction"}
ZERO_SNR = {"rescale_betas_zero_snr": True}
LAYER = "model.diffusion_model.middle_block.1.proj_in"


@pytest.mark.parametrize(
    ("keys", "metadata", "settings"),
    [
        ([], {}, {}),
        (["v_pred"], {}, V),
        (["v_pred", "ztsnr"], {}, V | ZERO_SNR),
        ([], {"prediction_type": "v"}, V),
        ([], {"prediction_type": "epsilon"}, {}),
        ([], {"predict_key": "v"}, V),  # ComfyUI's
        ([], {"predict_key": "epsilon", "noise_process": "ddpm"}, {}),
        (["v_pred"], {"prediction_type": "epsilon"}, V),  # sd-scripts writes epsilon for every SDXL
        ([], {"prediction_type": "velocity", "noise_process": "ddpm"}, V),
    ],
)
def test_what_a_file_says_of_its_prediction(keys, metadata, settings):
    metadata = {f"modelspec.{name}": value for name, value in metadata.items()}
    assert scheduler_settings(FILE, keys, metadata) == settings


@pytest.mark.parametrize(
    ("keys", "metadata", "message"),
    [
        (["edm_mean", "edm_std"], {}, r"neither an epsilon nor a v model \(edm_mean, edm_std\)"),
        (["edm_vpred.sigma_max"], {}, "edm_vpred.sigma_max"),
        (["v_pred", "edm_vpred.sigma_max"], {}, "edm_vpred.sigma_max"),
        ([], {"prediction_type": "velocity", "noise_process": "flow"}, "noise process flow"),
        ([], {"prediction_type": "sample"}, "prediction type sample"),
        (["ztsnr"], {}, "zero SNR .* and not that it predicts v"),
    ],
)
def test_other_kinds_of_models_are_refused(keys, metadata, message):
    metadata = {f"modelspec.{name}": value for name, value in metadata.items()}
    with pytest.raises(InputError, match=message):
        scheduler_settings(FILE, keys, metadata)


FLOAT8 = torch.ones(4, 4).to(torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"model.diffusion_model.scaled_fp8": torch.zeros(2), f"{LAYER}.scale_weight": torch.ones(())},
            "fp8 with scales",
        ),
        ({f"{LAYER}.weight": FLOAT8, f"{LAYER}.weight_scale": torch.ones(())}, "fp8 with scales"),
        ({f"{LAYER}.comfy_quant": torch.zeros(9, dtype=torch.uint8)}, "ComfyUI's layouts"),
        ({f"{LAYER}.weight.absmax": torch.ones(4), f"{LAYER}.weight.quant_map": torch.ones(16)}, "bitsandbytes"),
        ({f"{LAYER}.weight.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8)}, "bitsandbytes"),
        ({f"{LAYER}.SCB": torch.ones(4)}, "bitsandbytes"),
        ({f"{LAYER}.qweight": torch.zeros(4, 2, dtype=torch.int8), f"{LAYER}.wscales": torch.ones(4)}, "SVDQuant"),
        ({f"{LAYER}.weight": torch.zeros(4, 4, dtype=torch.int8)}, r"to int8, as model\.diffusion_model"),
    ],
)
def test_quantised_weights_are_refused(more, message):
    with pytest.raises(InputError, match=rf"quantised weights \(.*{message}"):
        check_weights(FILE, {f"{LAYER}.bias": torch.zeros(4)} | more, {})


def test_numbers_in_few_bits_are_numbers():
    text = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)}
    check_weights(FILE, {f"{LAYER}.weight": FLOAT8} | text, {"modelspec.title": "fp8"})


def test_comfyuis_quantisation_in_the_metadata():
    with pytest.raises(InputError, match="quantised weights"):
        check_weights(FILE, {f"{LAYER}.weight": FLOAT8}, {"_quantization_metadata": "{}"})


def test_gguf_files_are_refused(tmp_path):
    config = tiny_pipelines.tiny_sd(tmp_path / "config")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match="as a GGUF file"):
        load_base(tmp_path / "model.gguf", config=config)


@pytest.mark.parametrize(
    ("key", "unused"),
    [
        ("model_ema.diffusion_modelinput_blocks00weight", True),
        ("alphas_cumprod_prev", True),
        ("sqrt_one_minus_alphas_cumprod", True),
        ("betas", True),
        ("posterior_mean_coef1", True),
        ("denoiser.sigmas", True),
        ("first_stage_model.loss.discriminator.main.0.weight", True),
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", True),
        ("model.diffusion_model.time_embed.cond_proj.weight", False),
        ("control_model.input_blocks.0.0.weight", False),
        ("edm_mean", False),
    ],
)
def test_what_may_stay_unread(key, unused):
    """The buffers that CompVis' and Stability's training code saves."""
    assert bool(UNUSED.fullmatch(key)) == unused
