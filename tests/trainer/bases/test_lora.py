"""LoRAs as people have them, against what their layers compute: base(x) + alpha / rank · up(down(x))."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from npnet_core.errors import InputError
from tests import tiny_pipelines
from trainer.bases import load_base

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
QUERY = f"{BLOCK}.attn1.to_q"
# layer: (rank, alpha); no two scales are the same, and the last file has no alpha
UNET = {
    QUERY: (4, 2.0),
    f"{BLOCK}.attn1.to_k": (4, 4.0),
    f"{BLOCK}.attn2.to_out.0": (8, 1.0),
    f"{BLOCK}.ff.net.0.proj": (2, None),
    "down_blocks.0.resnets.0.conv1": (4, 1.0),
    "down_blocks.0.downsamplers.0.conv": (2, 3.0),
    "down_blocks.0.resnets.0.time_emb_proj": (3, 1.0),
    "down_blocks.1.attentions.0.proj_in": (4, 3.0),
    "mid_block.resnets.1.conv2": (2, 5.0),
    "up_blocks.0.attentions.1.proj_out": (2, 7.0),
    "up_blocks.0.upsamplers.0.conv": (2, 9.0),
    "up_blocks.1.resnets.0.conv_shortcut": (2, 11.0),
    "time_embedding.linear_2": (2, 13.0),
    "conv_in": (2, 1.5),
}
TEXT = {"encoder.layers.0.self_attn.q_proj": (4, 1.0), "encoder.layers.1.mlp.fc1": (4, 3.0)}
# kohya's scripts train SDXL on a UNet of the original layout
ORIGINAL = {
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.0.resnets.0.time_emb_proj": "input_blocks.1.0.emb_layers.1",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0.conv_shortcut": "output_blocks.2.0.skip_connection",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("lora")
    return {"sd": tiny_pipelines.tiny_sd(root / "sd"), "sdxl": tiny_pipelines.tiny_sdxl(root / "sdxl")}


def layer_of(base, part, name):
    network = base.pipe.components[part]
    wrapped = part != "unet" and hasattr(network, "text_model")
    return network.get_submodule(f"text_model.{name}" if wrapped else name)


def matrices(layer, rank):
    """(down, up) that a LoRA of this layer has."""
    weight = layer.weight
    down = 0.1 * torch.randn(rank, *weight.shape[1:])
    return down, 0.1 * torch.randn(len(weight), rank, *(1 for _ in weight.shape[2:]))


def computed(layer, down, up, scale, x):
    """The layer's output with the LoRA beside it, as it is trained."""
    if isinstance(layer, torch.nn.Linear):
        return layer(x) + scale * F.linear(F.linear(x, down), up)
    return layer(x) + scale * F.conv2d(F.conv2d(x, down, stride=layer.stride, padding=layer.padding), up)


def kohya(part, name, kind):
    if part == "unet":
        if kind == "sdxl":
            name = next((name.replace(key, value) for key, value in ORIGINAL.items() if name.startswith(key)), name)
        return "lora_unet_" + name.replace(".", "_")
    prefix = "lora_te2_" if part == "text_encoder_2" else "lora_te1_" if kind == "sdxl" else "lora_te_"
    return prefix + f"text_model.{name}".replace(".", "_")


def dotted(part, name, kind):
    return f"{part}.{name}" if part == "unet" else f"{part}.text_model.{name}"


def older(part, name, kind):
    """diffusers before peft: attention processors had the matrices."""
    head, _, last = name.rpartition(".attn1.to_")
    return f"unet.{head}.attn1.processor.to_{last}" if head else dotted(part, name, kind)


LAYOUTS = {
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight"),
    "peft": (dotted, ".lora_A.weight", ".lora_B.weight"),
    "diffusers": (dotted, ".lora.down.weight", ".lora.up.weight"),
    "processors": (older, "_lora.down.weight", "_lora.up.weight"),
    "text": (dotted, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
}


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_every_layer_computes_what_was_trained(folders, tmp_path, kind, layout):
    torch.manual_seed(0)
    naming, down_name, up_name = LAYOUTS[layout]
    base, tensors, expected = load_base(folders[kind]), {}, []
    parts = {"unet": UNET, "text_encoder": TEXT} | ({"text_encoder_2": TEXT} if kind == "sdxl" else {})
    for part, layers in parts.items():
        for name, (rank, alpha) in layers.items():
            layer, key = layer_of(base, part, name), naming(part, name, kind)
            down, up = matrices(layer, rank)
            tensors |= {key + down_name: down, key + up_name: up}
            if alpha is not None:
                tensors[key + ".alpha"] = torch.tensor(alpha)
            side = () if isinstance(layer, torch.nn.Linear) else (8, 8)
            x = torch.randn(2, layer.weight.shape[1], *side) if side else torch.randn(2, layer.in_features)
            expected.append((part, name, x, computed(layer, down, up, 1.0 if alpha is None else alpha / rank, x)))
    save_file(tensors, tmp_path / "lora.safetensors")
    after = load_base(folders[kind], lora=tmp_path / "lora.safetensors")
    for part, name, x, output in expected:
        torch.testing.assert_close(layer_of(after, part, name)(x), output, rtol=1e-4, atol=1e-5, msg=f"{part}.{name}")
        assert (layer_of(base, part, name)(x) - output).abs().max() > 1e-3


@torch.no_grad()
def test_the_alpha_that_diffusers_writes_beside_the_matrices(folders, tmp_path):
    base = load_base(folders["sd"])
    layer = layer_of(base, "unet", QUERY)
    down, up = matrices(layer, 4)
    tensors = {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}
    settings = {"unet.r": 4, "unet.lora_alpha": 8, "unet.use_dora": False, "unet.rank_pattern": {}}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    after = load_base(folders["sd"], lora=tmp_path / "lora.safetensors")
    torch.testing.assert_close(layer_of(after, "unet", QUERY).weight, layer.weight + 2 * up @ down)
    settings |= {"unet.use_rslora": True}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(InputError, match=r"no plain LoRA \(unet.use_rslora: True\)"):
        load_base(folders["sd"], lora=tmp_path / "lora.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("writer", ["peft", "diffusers"])
def test_the_alpha_that_peft_and_a_network_of_diffusers_write(folders, tmp_path, writer):
    """peft beside its file, diffusers into it and there without a part's name."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=12, target_modules=[QUERY], init_lora_weights=False)
    network = UNet2DConditionModel.from_pretrained(folders["sd"] / "unet")
    before = network.get_submodule(QUERY).weight.clone()
    if writer == "peft":
        get_peft_model(network, config).save_pretrained(tmp_path)
    else:
        network.add_adapter(config)
        network.save_lora_adapter(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    down, up = (value for _, value in sorted(load_file(file).items()))
    after = layer_of(load_base(folders["sd"], lora=file), "unet", QUERY)
    torch.testing.assert_close(after.weight, before + 3 * up @ down)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_rslora": True}, r"no plain LoRA \(use_rslora: True\)"),
        ({"init_lora_weights": "pissa_niter_4"}, r"no plain LoRA \(init_lora_weights: pissa_niter_4\)"),
        (None, "adapter_config.json, and there is none beside it"),
    ],
)
def test_settings_of_peft_that_are_not_honoured_or_lost(folders, tmp_path, settings, message):
    down, up = matrices(layer_of(load_base(folders["sd"]), "unet", QUERY), 4)
    name = f"base_model.model.{QUERY}"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "adapter_model.safetensors")
    if settings is not None:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, **settings}))
    with pytest.raises(InputError, match=message):
        load_base(folders["sd"], lora=tmp_path / "adapter_model.safetensors")


KEY = "lora_unet_" + QUERY.replace(".", "_")


def plain(base):
    down, up = matrices(layer_of(base, "unet", QUERY), 2)
    return {f"{KEY}.lora_down.weight": down, f"{KEY}.lora_up.weight": up}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (f"{KEY}.dora_scale", "no plain LoRA but DoRA"),
        (f"unet.{QUERY}.lora_magnitude_vector", "no plain LoRA but DoRA"),
        (f"{KEY}.hada_w1_a", "no plain LoRA but LoHa"),
        (f"{KEY}.lokr_w1", "no plain LoRA but LoKr"),
        (f"{KEY}.oft_blocks", "no plain LoRA but OFT"),
        (f"{KEY}.lora_mid.weight", "third matrix"),
        (f"{KEY}.diff", "differences of whole weights"),
        (f"{KEY}.diff_b", "differences of whole weights"),
        (f"{KEY}.w_norm", "differences of whole weights"),
        (f"unet.{QUERY}.lora_B.bias", "no plain LoRA but biases"),
        (f"{KEY}.on_input", "no plain LoRA but .IA."),
        ("bundle_emb.word.string_to_param.*", "trained words"),
        (f"{KEY}_of_another_model.lora_up.weight", r"has no place for \(lora_unet_.*another_model"),
        (f"{KEY}.scalar", r"has no place for \(.*scalar"),
        (f"unet.{QUERY}.lora_A.weight", r"has no place for \(unet\."),  # the same layer under a second name
        (f"{KEY[:-1]}k.lora_up.weight", "only one of a layer's two matrices"),
    ],
)
def test_what_would_not_be_added_is_refused(folders, tmp_path, more, message):
    tensors = plain(load_base(folders["sd"])) | {more: torch.ones(2, 2)}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=message):
        load_base(folders["sd"], lora=tmp_path / "lora.safetensors")


def test_a_lora_of_another_width(folders, tmp_path):
    tensors = plain(load_base(folders["sd"]))
    tensors[f"{KEY}.lora_down.weight"] = torch.ones(2, 7)
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=r"matrices of .* for weights of"):
        load_base(folders["sd"], lora=tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value * float("nan"), "NaN or infinite weights"),
        (lambda value: (100 * value).to(torch.int8), r"no plain LoRA but quantised \(to int8\)"),
    ],
)
def test_matrices_that_are_no_numbers_or_not_simply_numbers(folders, tmp_path, change, message):
    tensors = plain(load_base(folders["sd"]))
    tensors[f"{KEY}.lora_up.weight"] = change(tensors[f"{KEY}.lora_up.weight"])
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=message):
        load_base(folders["sd"], lora=tmp_path / "lora.safetensors")
