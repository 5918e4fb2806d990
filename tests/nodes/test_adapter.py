"""An adapter in ComfyUI is the trainer's: the same f of the same weights, whatever the graph does beside."""

from __future__ import annotations

import json
import logging
from functools import partial

import comfy.ops
import comfy.supported_models
import pytest
import torch
from comfy.ldm.flux.model import FluxParams
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from npnet_core.adapter import Adapter
from npnet_core.checkpoint import save_npnet
from tests.nodes.sampling import GOLDEN, custom_sample, empty, ksample, save_lora, source_noise, watched
from tests.nodes.tiny_pack.models import SDXL_UNET, tiny_controlnet, tiny_patcher, with_weights
from tests.tiny_pipelines import tiny_flux, tiny_hunyuan_dit, tiny_sdxl, tiny_z_image
from trainer import bases
from trainer.collecting.recipe import preset_recipe

PROMPT, OTHER = "a red circle left of the blue square", "one green circle"


def sdxl(folder):
    """With ComfyUI's 32 groups, and prompts as wide as SDXL's, by which our nodes tell it."""
    return tiny_sdxl(
        folder,
        (768, 1280),
        block_out_channels=(32, 64),
        norm_num_groups=32,
        attention_head_dim=(1, 2),
        transformer_layers_per_block=(1, 1),
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 24,
    "context_in_dim": 40,
    "hidden_size": 32,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
    **({"txt_ids_dims": []} if "txt_ids_dims" in FluxParams.__dataclass_fields__ else {}),  # not yet in 0.3.64
}
Z_IMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 32,
    "cap_feat_dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "axes_dims": [4, 6, 6],
    "axes_lens": [640, 64, 64],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8 / 3,
    "multiple_of": 5,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
    "qk_norm": True,
}
HUNYUAN = {  # 1.1, which is told the picture's size
    "image_model": "hydit1",
    "hidden_size": 24,
    "depth": 4,
    "num_heads": 3,
    "text_states_dim": 32,
    "text_states_dim_t5": 40,
    "size_cond": True,
    "use_style_cond": True,
}
KINDS = {  # family: (pipeline, ComfyUI's config, its settings)
    "sdxl": (sdxl, "SDXL", SDXL_UNET),
    "flux": (tiny_flux, "Flux", FLUX),
    "z-image": (tiny_z_image, "ZImage", Z_IMAGE),
    "hunyuan-dit": (partial(tiny_hunyuan_dit, num_layers=4, pooled_projection_dim=1024), "HunyuanDiT1", HUNYUAN),
}
every = pytest.mark.parametrize("family", KINDS, indirect=True)


@pytest.fixture(scope="module")
def family(request, pack):
    kind = getattr(request, "param", "sdxl")
    if not hasattr(comfy.supported_models, KINDS[kind][1]):
        pytest.skip(f"this ComfyUI has no {kind}")
    return kind


@pytest.fixture(scope="module")
def base(family, tmp_path_factory):
    return bases.load_base(KINDS[family][0](tmp_path_factory.mktemp(family) / "base"))


@pytest.fixture(scope="module")
def model(pack, base, family):
    return build(pack, base, family)


@with_weights()
def build(pack, base, family, dtype: torch.dtype = torch.float32):
    """ComfyUI's MODEL with the weights of the trainer's base."""
    made = config_of(family, dtype).get_model({}, device="cpu")
    if family == "z-image":  # whose 1,024 features ComfyUI takes from a width that is smaller here
        embedder, layers = made.diffusion_model.t_embedder, comfy.ops.disable_weight_init
        made.diffusion_model.t_embedder = type(embedder)(1024, output_size=32, dtype=dtype, operations=layers)
    patcher = tiny_patcher(made, 0)
    holding(pack, patcher, base, family)
    return patcher


def config_of(family, dtype: torch.dtype):
    _, name, settings = KINDS[family]
    config = getattr(comfy.supported_models, name)({**settings, "dtype": dtype})
    if name == "SDXL":
        config.unet_config["num_head_channels"] = 32
    config.set_inference_dtype(dtype, torch.float32 if dtype.itemsize == 1 else None)
    return config


@with_weights()
def packed(pack, base, family, kind: str) -> ModelPatcher:
    """The same MODEL from a file whose linear layers are quantised, as ComfyUI reads it."""
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    plain = build(pack, base, family)
    network, state = plain.model.diffusion_model, {}
    for name, weight in network.state_dict().items():
        layer, _, which = name.rpartition(".")
        if which == "weight" and isinstance(network.get_submodule(layer), torch.nn.Linear):
            layout = QUANT_ALGOS[kind]["comfy_tensor_layout"]
            state |= QuantizedTensor.from_float(weight.clone(), layout, scale="recalculate").state_dict(name)
            said = json.dumps({"format": kind}).encode()
            state[f"{layer}.comfy_quant"] = torch.tensor(list(said), dtype=torch.uint8)
        else:
            state[name] = weight.clone()
    config = config_of(family, torch.float32)
    config.custom_operations = comfy.ops.mixed_precision_ops({}, torch.float32, full_precision_mm=True)
    made = config.get_model({}, device="cpu")
    assert made.diffusion_model.load_state_dict(state, strict=False).missing_keys == []
    return ModelPatcher(made.eval(), plain.load_device, plain.offload_device)


@torch.no_grad()
def holding(pack, patcher, base, family) -> None:
    """Copy a base's weights into a model, by ComfyUI's own tables."""
    adapter = pack.nodes.adapter
    weights = patcher.model.state_dict()
    places = adapter.map_of(family)(patcher.model.model_config.unet_config)
    for name, value in base.network.named_parameters():
        place = adapter._place(places[name])
        target = weights[place.key] if place.part is None else weights[place.key].narrow(*place.part)
        target.copy_((value if place.turned is None else place.turned(value)).view_as(target))


@pytest.fixture(scope="module")
def file(comfy_base, base, family):
    return save_adapter(comfy_base, base, f"adapter-{family}.safetensors", 4)


def save_adapter(comfy_base, base, name: str, rank: int):
    """Random, none of its tensors zero."""
    level = bases.levels(base, preset_recipe(bases.default_preset(base)).schedule)[0]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        npnet = Adapter(bases.adapter_config(base, rank, level, 4.5, 16))
        with torch.no_grad():
            for tensor, parameter in npnet.named_parameters():
                if ".pooler." not in tensor:  # Hunyuan-DiT's, no call of its layers: a fit leaves it as it is
                    parameter.add_(torch.randn(parameter.shape), alpha=0.1 if rank else 0.02)
    path = comfy_base / "models" / "npnet" / name
    save_npnet(npnet, path)
    return path


@pytest.fixture(scope="module")
def npnet(call, file):
    return call("NPNetLoad", npnet_name=file.name)[0]


def conditioning(base, prompt: str = PROMPT, **options) -> list:
    """As ComfyUI's text encoders would give it."""
    told = bases.encode(base, [prompt]).cond
    extra = {"pooled_output": told["pooled"]} if "pooled" in told else {"pooled_output": None}
    if base.family == "hunyuan-dit":
        extra = {"attention_mask": told["mask"], "attention_mask_mt5xl": told["t5_mask"]}
        extra["conditioning_mt5xl"] = told["t5_embeds"]
    if base.family == "z-image":  # FLUX.1's prompts are a fixed number of tokens without a mask
        extra["attention_mask"] = told["prompt_mask"].long()
    return [[told["prompt_embeds"], extra | options]]


def noise_for(base, batch: int = 2):
    # where width and height differ, diffusers places a Hunyuan-DiT's patches a little otherwise than its authors do
    width = 16 if base.family == "hunyuan-dit" else 12
    return torch.randn(batch, base.channels, 16, width, generator=torch.Generator().manual_seed(4))


@torch.inference_mode()  # as ComfyUI runs nodes
def f_of(pack, npnet, model, cond, noise):
    start = pack.nodes.conditioning.at_full_noise(tuple(noise.shape))
    return pack.nodes.adapter.predictor_of(model, cond, start)(npnet.patcher.model, noise)


@every
def test_f_is_the_trainers(pack, base, model, npnet, file):
    noise, ours = noise_for(base), load(file)
    with torch.no_grad():
        expected = bases.predictor_of(base, bases.encode(base, [PROMPT, PROMPT]))(ours, noise)
    f = f_of(pack, npnet, model, conditioning(base), noise)
    assert expected.std() > 0.01
    assert (f - expected).abs().max() < 1e-4


@every
def test_f_of_a_net_of_all_weights_is_the_trainers(call, pack, base, model, comfy_base, family):
    path = save_adapter(comfy_base, base, f"all-{family}.safetensors", 0)
    noise, (npnet,) = noise_for(base), call("NPNetLoad", npnet_name=path.name)
    with torch.no_grad():
        expected = bases.predictor_of(base, bases.encode(base, [PROMPT, PROMPT]))(load(path), noise)
    assert (f_of(pack, npnet, model, conditioning(base), noise) - expected).abs().max() < 1e-4


def load(path):
    from npnet_core.checkpoint import load_npnet

    return load_npnet(path)


@every
def test_every_weight_lands(pack, model, npnet):
    clone, config = pack.nodes.adapter.adapted(model, npnet.patcher.model), npnet.config
    landed = sum(len(patches) for patches in clone.patches.values()) - sum(map(len, model.patches.values()))
    assert landed == len(config.weights) + 2  # the output layer's weight and bias
    assert len(config.weights) == sum(
        name.endswith("lora_A.weight") for name, _ in npnet.patcher.model.named_parameters()
    )


@every
def test_what_the_graph_tells_the_model_does_not_reach_f(pack, base, model, npnet):
    noise = noise_for(base)
    f = f_of(pack, npnet, model, conditioning(base), noise)
    asked = {"guidance": 9.0, "area": (8, 8, 0, 0), "strength": 0.3, "width": 4096, "height": 64, "crop_w": 99}
    asked["reference_latents"] = [torch.ones(1, base.channels, 16, 12)]
    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "mine", lambda executor, x, *args, **kwargs: 0 * x)
    patched.set_model_unet_function_wrapper(lambda apply, args: 0 * args["input"])
    patched.set_model_sampler_post_cfg_function(lambda args: 0 * args["denoised"])
    assert torch.equal(f_of(pack, npnet, patched, conditioning(base, **asked), noise), f)


# --- the nodes, with SDXL


def golden(base, file, source, prompt: str = PROMPT):
    return bases.golden(base, load(file), source, bases.encode(base, [prompt] * len(source)))


def test_both_nodes_give_the_trainers_golden_noise(call, base, model, npnet, file):
    positive, negative, latent = conditioning(base), conditioning(base, ""), empty(2, 16, 12)
    source, before = source_noise(latent), {k: v.clone() for k, v in model.model.state_dict().items()}
    expected = golden(base, file, source)
    random = call("RandomNoise", noise_seed=7)[0]
    (noise,) = call("NPNetNoise", npnet=npnet, noise=random, conditioning=positive, model=model, **GOLDEN)
    assert (noise.generate_noise(latent) - expected).abs().max() < 1e-4
    (patched,) = call("NPNetModelPatch", model=model, npnet=npnet, **GOLDEN)
    patched, seen = watched(patched)
    by_patch = ksample(patched, positive, negative, latent)
    assert (seen[0] - expected).abs().max() < 1e-4
    by_noise = custom_sample(noise, model, positive, negative, latent)
    assert (by_patch - by_noise).abs().max() < 1e-5
    # sampled with the model as it was
    fixed = Given(seen[0])
    assert (by_patch - custom_sample(fixed, model, positive, negative, latent)).abs().max() < 1e-5
    ordinary = ksample(model, positive, negative, latent)
    assert not torch.equal(by_patch, ordinary)
    assert all(torch.equal(value, before[key]) for key, value in model.model.state_dict().items())


class Given:
    seed = 7

    def __init__(self, noise):
        self.noise = noise

    def generate_noise(self, latent):
        return self.noise


def test_loras_of_the_graph_act_on_it(call, base, model, npnet, comfy_base, pack):
    name = save_lora(
        comfy_base / "models" / "loras" / "adapter-lora.safetensors", model.model.diffusion_model.middle_block,
        "diffusion_model.middle_block.",
    )  # fmt: skip
    (changed,) = call("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=1.0)
    noise = noise_for(base)
    one, other = (f_of(pack, npnet, each, conditioning(base), noise) for each in (model, changed))
    assert (one - other).abs().max() > 1e-3


def test_controlnets_and_hooks_of_the_conditioning_act_on_sampling_alone(call, base, model, npnet, file, comfy_base):
    """A ControlNet, and a LoRA that is hooked to the prompt, throughout and from half time on."""
    positive, negative, latent = conditioning(base), conditioning(base, ""), empty(1, 16, 12)
    expected = golden(base, file, source_noise(latent))
    hint = torch.rand(1, 128, 96, 3, generator=torch.Generator().manual_seed(4))
    controlled = call(
        "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=tiny_controlnet(), image=hint,
        strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    name = save_lora(
        comfy_base / "models/loras/hooked.safetensors", model.model.diffusion_model.middle_block,
        "diffusion_model.middle_block.",
    )  # fmt: skip
    (hooks,) = call("CreateHookLora", lora_name=name, strength_model=1.0, strength_clip=0.0)
    (keyframes,) = call("CreateHookKeyframe", strength_mult=0.0, start_percent=0.0)
    (keyframes,) = call("CreateHookKeyframe", strength_mult=1.0, start_percent=0.5, prev_hook_kf=keyframes)
    (late,) = call("SetHookKeyframes", hooks=hooks, hook_kf=keyframes)
    plain = ksample(model, positive, negative, latent)
    for conds in (controlled, *(([[positive[0][0], {**positive[0][1], "hooks": h}]], negative) for h in (hooks, late))):
        patched, seen = watched(call("NPNetModelPatch", model=model, npnet=npnet, **GOLDEN)[0])
        sampled = ksample(patched, *conds, latent)
        assert (seen[0] - expected).abs().max() < 1e-4
        assert (sampled - custom_sample(Given(seen[0]), model, *conds, latent)).abs().max() < 1e-5
        assert not torch.allclose(sampled, custom_sample(Given(seen[0]), model, positive, negative, latent), atol=1e-3)
    assert torch.equal(ksample(model, positive, negative, latent), plain)


@pytest.fixture(scope="module")
def error(pack, base, model, npnet):
    """Of the f that another MODEL gives, relative to that of the same in fp32."""
    exact = f_of(pack, npnet, model, conditioning(base), noise_for(base))

    def of(other) -> float:
        rounded = f_of(pack, npnet, other, conditioning(base), noise_for(base))
        return (torch.linalg.vector_norm(rounded - exact) / torch.linalg.vector_norm(exact)).item()

    return of


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.bfloat16, 0.05), (torch.float8_e4m3fn, 0.2), (torch.float8_e5m2, 0.35)]
)
def test_fewer_bits_stay_near(pack, base, error, family, caplog, dtype, bound):
    caplog.set_level(logging.INFO)
    assert 0 < error(build(pack, base, family, dtype)) < bound
    said = [record.levelname for record in caplog.records if "this model is quantised" in record.message]
    assert said == {torch.bfloat16: [], torch.float8_e4m3fn: ["INFO"], torch.float8_e5m2: ["WARNING"]}[dtype]


@pytest.mark.parametrize(
    ("kind", "bound", "level"),
    [("float8_e4m3fn", 0.1, "INFO"), ("int8_tensorwise", 0.05, "INFO"), ("nvfp4", 0.4, "WARNING")],
)
def test_packed_weights_stay_near(pack, base, error, family, caplog, kind, bound, level):
    """Those of a file that says how each of its layers is quantised."""
    if not hasattr(comfy.ops, "mixed_precision_ops"):
        pytest.skip("this ComfyUI reads no such files")
    caplog.set_level(logging.INFO)
    assert 0 < error(packed(pack, base, family, kind)) < bound
    assert [record.levelname for record in caplog.records if "this model is quantised" in record.message] == [level]


def test_without_the_model_it_is_refused(call, base, npnet):
    random = call("RandomNoise", noise_seed=7)[0]
    with pytest.raises(
        Exception, match="This NPNet is an adapter, which works inside its base model: connect the model"
    ):
        call("NPNetNoise", npnet=npnet, noise=random, conditioning=conditioning(base), **GOLDEN)


def test_another_network_is_refused_and_other_weights_are_said(call, pack, base, model, npnet, caplog):
    from tests.nodes.tiny_pack.models import tiny_hunyuan_dit
    from tests.nodes.tiny_pack.models import tiny_sdxl as other_sdxl

    noise = noise_for(base)
    with pytest.raises(Exception, match="not of the kind that this NPNet was made of"):
        f_of(pack, npnet, tiny_hunyuan_dit(), conditioning(base), noise)
    caplog.set_level(logging.WARNING)
    f_of(pack, npnet, model, conditioning(base), noise)
    assert "fitted with other weights" not in caplog.text
    f_of(pack, npnet, other_sdxl(5), conditioning(base), noise)
    assert "fitted with other weights" in caplog.text
