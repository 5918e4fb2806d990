"""Base models: load one, encode prompts, predict, sample, decode. The only file that talks to diffusers.

Everything between the parts is a tensor of one kind: latents and noise are fp32 [B, C, h, w] with unit variance at the
start, whatever a scheduler or an autoencoder wants scaled; images are fp32 [B, H, W, 3] in 0..1.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import logging
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from npnet_core.errors import InputError
from npnet_core.redenoise import Denoiser, Level, denoised_from, eps_from, guide
from trainer.distributed import find_device

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How many steps, and where: a sampler's name (see :data:`SAMPLERS`), its number of steps, their spacing.

    Args:
        sampler: one of :data:`SAMPLERS`.
        steps: number of denoising steps.
        spacing: ``leading``, ``trailing`` or ``linspace``; ``ays`` for the ten steps of Align Your Steps; None for the
            spacing that the base model's own scheduler has.

    Raises:
        InputError: for a name that does not exist, no steps, or another number than ten with ``ays``.
    """

    sampler: str = "ddim"
    steps: int = 10
    spacing: str | None = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise InputError(f"There is no sampler {self.sampler!r}: use one of {', '.join(SAMPLERS)}.")
        if self.spacing not in (None, *SPACINGS):
            raise InputError(f"There is no spacing {self.spacing!r}: use one of {', '.join(SPACINGS)}.")
        if self.steps < 1:
            raise InputError(f"{self.steps} denoising steps make no image: use at least 1.")
        if self.spacing == "ays" and self.steps != 10:
            raise InputError(f"Spacing ays exists for 10 steps and {self.steps} were asked for: use 10 steps.")


@dataclass(frozen=True)
class Preset:
    """The paper's settings for one base model, for collecting: guidance w_l down and w_w back, and the schedule."""

    cfg: float
    inversion_cfg: float
    schedule: Schedule


@dataclass(frozen=True)
class Base:
    """A loaded base model. Made by :func:`load_base`.

    Attributes:
        source: what the user named.
        family: ``sdxl``, ``hunyuan-dit``, ``sd1``, ``sd2``, or ``sd`` for an SD of another text width; NPNetConfig's.
        pipe: the diffusers pipeline that holds the parts. Its ``__call__`` is never used.
        device: where the network predicts.
        controlnet: the ControlNet that ``control`` pictures are for, or None.
    """

    source: str
    family: str
    pipe: Any
    device: torch.device
    controlnet: nn.Module | None = None

    @property
    def network(self) -> nn.Module:
        """The UNet or transformer."""
        return self.pipe.transformer if self.family == "hunyuan-dit" else self.pipe.unet

    @property
    def dtype(self) -> torch.dtype:
        """The network's precision."""
        return self.network.dtype

    @property
    def prediction(self) -> str:
        """What the network predicts: ``epsilon`` or ``v_prediction``."""
        return self.pipe.scheduler.config.prediction_type

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return self.network.config.in_channels

    @property
    def pixels(self) -> int:
        """Image pixels per side of a latent pixel (8 for the published models)."""
        return self.pipe.vae_scale_factor

    @property
    def size(self) -> int:
        """The side, in pixels, of the square images the network was made for."""
        return self.network.config.sample_size * self.pixels

    @property
    def prompt_tokens(self) -> int:
        """T of the prompt embedding [N, T, D]."""
        return 77 if self.family == "hunyuan-dit" else self.pipe.tokenizer.model_max_length

    @property
    def prompt_dim(self) -> int:
        """D of the prompt embedding [N, T, D]."""
        width = self.pipe.text_encoder.config.hidden_size
        return width + (self.pipe.text_encoder_2.config.hidden_size if self.family == "sdxl" else 0)


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts: what the network is told with each of N prompts, and with none (the unconditional branch).

    ``cond`` and ``uncond`` hold the same names; every tensor of ``cond`` is [N, …], of ``uncond`` [1, …].
    """

    cond: dict[str, Tensor]
    uncond: dict[str, Tensor]

    @property
    def prompt_embeds(self) -> Tensor:
        """[N, T, D], what an NPNet sees."""
        return self.cond["prompt_embeds"]

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, rows: Sequence[int] | slice) -> Prompts:
        """Some of the prompts, in any order, any number of times."""
        return Prompts({name: value[rows] for name, value in self.cond.items()}, self.uncond)


# name: (diffusers' class, what it needs beside the model's noise schedule). Table 10's seven, and two for models of few
# steps. Latents have no bounds, so nothing is clipped; PNDM without Runge-Kutta warm-up is Stable Diffusion's PLMS.
SAMPLERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpm-solver-multistep": ("DPMSolverMultistepScheduler", {}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "kdpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
STOCHASTIC = ("ddpm", "euler-ancestral", "kdpm2-ancestral", "lcm")  # draw fresh noise on the way
SPACINGS = ("leading", "trailing", "linspace", "ays")

PRESETS = {
    "sdxl": Preset(5.5, 1.0, Schedule("ddim", 10)),
    "dreamshaper-xl-turbo": Preset(3.5, 1.0, Schedule("dpm-solver-multistep", 4)),
    "hunyuan-dit": Preset(5.0, 1.0, Schedule("ddim", 10)),
}

# diffusers' pipeline: the parts that a model_index.json must name for it.
PIPELINES = {
    "StableDiffusionXLPipeline": {
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    },
    "StableDiffusionPipeline": {
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": None,
    },
    "HunyuanDiTPipeline": {
        "transformer": "HunyuanDiT2DModel",
        "text_encoder": "BertModel",
        "text_encoder_2": "T5EncoderModel",
    },
}
NOISE_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "set_alpha_to_one",
    "timestep_spacing",
    "steps_offset",
)
PARTS = {"text": ("text_encoder", "text_encoder_2"), "network": ("unet", "transformer"), "vae": ("vae",)}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_base(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str | torch.device = "cpu",
    precision: str | None = None,
    lora: str | Path | None = None,
    controlnet: str | Path | None = None,
) -> Base:
    """Load a base model: SDXL and what descends from it, SD 1.x, SD 2.x, Hunyuan-DiT.

    Args:
        source: a diffusers folder, a single-file checkpoint (not of Hunyuan-DiT), or a hub id (``owner/name``), which
            is fetched if the hub's cache does not have it yet. Folders and hub ids are read from safetensors only.
        config: for a single file only, which holds neither tokenizer nor settings: a diffusers folder or hub id of a
            model of the same kind.
        device: where every part goes.
        precision: ``fp32``, ``fp16`` or ``bf16``; None for fp32 on the CPU and fp16 elsewhere. An autoencoder that
            overflows in half precision (``force_upcast``) stays in fp32.
        lora: a LoRA file for an SD or SDXL (LCM, PCM, Lightning), added to the weights at full strength; needs peft.
        controlnet: a ControlNet for an SD or SDXL, folder or hub id.

    Raises:
        InputError: nothing is there, it cannot be read, or it is a model of another kind.
    """
    log.info("Loading %s.", source)
    import diffusers

    device = find_device(str(device))
    precision = precision or ("fp32" if device.type == "cpu" else "fp16")
    if precision not in PRECISIONS:
        raise InputError(f"There is no precision {precision!r}: use one of {', '.join(PRECISIONS)}.")
    single_file = Path(source).is_file()
    if single_file and config is None:
        raise InputError(
            f"{source} is a single file, which holds neither tokenizer nor settings: name a diffusers folder or hub id "
            "of a model of the same kind as its config (--base-config)."
        )
    settings = str(config if single_file else source)
    cls = getattr(diffusers, _pipeline_class(settings))
    if single_file and not hasattr(cls, "from_single_file"):
        raise InputError(
            f"{source} is a single file, but {cls.__name__} is read from diffusers folders: name a folder."
        )
    options = {"dtype": PRECISIONS[precision], "local_files_only": Path(settings).is_dir()}
    if cls is not diffusers.StableDiffusionXLPipeline:
        options |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    with _loading(source):
        if single_file:
            pipe = cls.from_single_file(str(source), config=settings, **options)
        else:
            pipe = cls.from_pretrained(settings, use_safetensors=True, variant=_variant(settings), **options)
    if pipe.vae.config.get("force_upcast") and precision != "fp32":
        pipe.vae.to(torch.float32)
    base = Base(str(source), _family(pipe), pipe, device, controlnet and _load_controlnet(controlnet, options["dtype"]))
    _check_fits(base)
    if lora is not None:
        _add_lora(base, Path(lora))
    for part in PARTS:
        move(base, part, device)
    return base


def _pipeline_class(source: str) -> str:
    """The diffusers class for a model, from what its ``model_index.json`` says of the parts."""
    from diffusers import DiffusionPipeline

    if not Path(source).is_dir() and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise InputError(
            f"There is no base model {source}: name a diffusers folder, a single-file checkpoint or a hub id "
            "(owner/name)."
        )
    with _loading(source):
        index = DiffusionPipeline.load_config(source, local_files_only=Path(source).is_dir())
    parts = {name: value[1] for name, value in index.items() if isinstance(value, list)}
    for cls, expected in PIPELINES.items():
        if all(parts.get(name) == part for name, part in expected.items()):
            return cls
    raise InputError(
        f"{source} is a {index.get('_class_name')} of {', '.join(filter(None, parts.values()))}, which cannot be used: "
        "choose an SDXL, SD 1.x, SD 2.x or Hunyuan-DiT text-to-image model."
    )


def _variant(source: str) -> str | None:
    """``fp16`` for a folder that holds the weights in that form only."""
    names = {path.name for path in Path(source).glob("*/diffusion_pytorch_model*")}
    return "fp16" if names and all(".fp16." in name for name in names) else None


@contextmanager
def _loading(source: str | Path) -> Iterator[None]:
    """Turn what the loaders raise for absent, foreign and damaged files into one sentence that keeps their reason."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from safetensors import SafetensorError

    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, SingleFileComponentError) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 240, placeholder=" …").rstrip(".")
        remedy = "check the name, and download it first if this machine is offline"
        if Path(source).exists():
            remedy = "check that it is complete and of the right kind"
        raise InputError(f"{source} cannot be loaded ({reason}): {remedy}.") from error


def _load_controlnet(source: str | Path, dtype: torch.dtype) -> nn.Module:
    from diffusers import ControlNetModel

    with _loading(source):
        return ControlNetModel.from_pretrained(
            source, dtype=dtype, use_safetensors=True, local_files_only=Path(source).is_dir()
        )


def _add_lora(base: Base, lora: Path) -> None:
    if base.family == "hunyuan-dit":
        raise InputError(f"{base.source} is a Hunyuan-DiT, for which LoRAs are not supported here: leave it out.")
    if not lora.is_file():
        raise InputError(f"There is no LoRA file {lora}: name a safetensors file.")
    if importlib.util.find_spec("peft") is None:
        raise InputError("LoRAs need the package peft, which is not installed: pip install peft.")
    with _loading(lora):
        base.pipe.load_lora_weights(lora.parent, weight_name=lora.name, local_files_only=True)
    if not base.pipe.get_active_adapters():  # diffusers only warns
        raise InputError(f"{lora} has no weights for {base.source}: choose a LoRA made for this kind of model.")
    base.pipe.fuse_lora()
    base.pipe.unload_lora_weights()


def _family(pipe) -> str:
    name = type(pipe).__name__
    if name != "StableDiffusionPipeline":
        return {"StableDiffusionXLPipeline": "sdxl", "HunyuanDiTPipeline": "hunyuan-dit"}[name]
    return {768: "sd1", 1024: "sd2"}.get(pipe.text_encoder.config.hidden_size, "sd")


def _check_fits(base: Base) -> None:
    scheduler, latent = base.pipe.scheduler, base.pipe.vae.config.latent_channels
    if not hasattr(scheduler, "alphas_cumprod") or base.prediction not in ("epsilon", "v_prediction"):
        raise InputError(
            f"{base.source} uses {type(scheduler).__name__} with prediction type "
            f"{scheduler.config.get('prediction_type')}, but only models that predict epsilon or v can be used: choose "
            "another base model."
        )
    if base.channels != latent:
        raise InputError(
            f"{base.source} takes {base.channels} channels where its autoencoder makes {latent}, as models for "
            "inpainting or editing do: choose a text-to-image model."
        )
    for encoder, name in zip(_modules(base, "text"), ("tokenizer", "tokenizer_2"), strict=False):
        tokenizer = getattr(base.pipe, name)
        if len(tokenizer) < encoder.config.vocab_size / 2:  # an absent vocabulary is no error to transformers 5
            raise InputError(
                f"{base.source} has a tokenizer of {len(tokenizer)} words for a text encoder of "
                f"{encoder.config.vocab_size}: the tokenizer's files are missing, so download it again."
            )
    if base.controlnet is not None and base.family == "hunyuan-dit":
        raise InputError(f"{base.source} is a Hunyuan-DiT, for which ControlNets are not supported here: leave it out.")


def move(base: Base, part: str, device: str | torch.device) -> None:
    """Take the ``text`` encoders, the ``network`` or the ``vae`` to a device; the rest stays where it is.

    Encoding happens where the text encoders are and decoding where the autoencoder is; predictions need the network on
    ``base.device``.
    """
    for module in _modules(base, part):
        module.to(device)


def _modules(base: Base, part: str) -> list[nn.Module]:
    if part == "network":
        modules = [base.network, base.controlnet]
    else:
        modules = [getattr(base.pipe, name, None) for name in PARTS[part]]
    return [module for module in modules if module is not None]


def fingerprint(base: Base) -> str:
    """SHA-256 over the noise schedule and the first 32 numbers of every weight of every part, in the loaded precision.

    Cheap (no file is read again), and enough to tell models apart that were trained or merged differently. Names of
    weights stay out of it: they change between versions of the libraries.
    """
    digest = hashlib.sha256(json.dumps(_noise_schedule(base), sort_keys=True).encode())
    for part in PARTS:
        for module in _modules(base, part):
            for weight in module.parameters():
                digest.update(str(tuple(weight.shape)).encode())
                digest.update(weight.detach().flatten()[:32].cpu().double().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def encode(base: Base, prompts: Sequence[str], *, batch: int = 32, uncond: dict[str, Tensor] | None = None) -> Prompts:
    """Encode prompts, ``batch`` at a time, where the text encoders are; the result is on ``base.device``.

    As the model's own pipeline does it, and ComfyUI for a plain prompt that fits T tokens: there, parentheses are
    weights and a longer prompt makes further chunks, here it is cut (diffusers warns). The unconditional branch is the
    zeroed embedding for SDXL, as in the released collection code, and the empty prompt for the others; ``uncond`` is
    that of an earlier call, not to be encoded again.
    """
    chunks = [_encode(base, list(prompts[i : i + batch])) for i in range(0, len(prompts), batch)]
    cond = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    if uncond is None and base.family == "sdxl":
        uncond = {name: torch.zeros_like(value[:1]) for name, value in cond.items()}
    return Prompts(cond, _encode(base, [""]) if uncond is None else uncond)


def join(parts: Sequence[Prompts]) -> Prompts:
    """Prompts of one base model, one after the other."""
    cond = {name: torch.cat([part.cond[name] for part in parts]) for name in parts[0].cond}
    return Prompts(cond, parts[0].uncond)


def _encode(base: Base, prompts: list[str]) -> dict[str, Tensor]:
    one_branch = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    device = base.pipe.text_encoder.device
    if base.family == "hunyuan-dit":
        dtype = base.pipe.text_encoder.dtype
        bert, _, bert_mask, _ = base.pipe.encode_prompt(
            prompts, device, dtype, **one_branch, max_sequence_length=77, text_encoder_index=0
        )
        t5, _, t5_mask, _ = base.pipe.encode_prompt(
            prompts, device, dtype, **one_branch, max_sequence_length=256, text_encoder_index=1
        )
        encoded = {"prompt_embeds": bert, "mask": bert_mask, "t5_embeds": t5, "t5_mask": t5_mask}
    elif base.family == "sdxl":
        embeds, _, pooled, _ = base.pipe.encode_prompt(prompts, device=device, **one_branch)
        encoded = {"prompt_embeds": embeds, "pooled": pooled}
    else:
        embeds, _ = base.pipe.encode_prompt(prompts, device, **one_branch)
        encoded = {"prompt_embeds": embeds}
    return {
        name: value.to(base.device, base.dtype if value.is_floating_point() else None)
        for name, value in encoded.items()
    }


def latent_shape(base: Base, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
    """(C, h, w) of the latent of an image of height × width pixels, the network's own size by default.

    Raises:
        InputError: for sides that are no multiple of what the model can do.
    """
    height, width = height or base.size, width or base.size
    multiple = base.pixels * (base.network.config.patch_size if base.family == "hunyuan-dit" else 1)
    if height % multiple or width % multiple:
        raise InputError(
            f"An image of {width}x{height} pixels does not fit {base.source}: use multiples of {multiple} pixels."
        )
    return base.channels, height // base.pixels, width // base.pixels


def initial_noise(base: Base, seeds: Sequence[int], height: int | None = None, width: int | None = None) -> Tensor:
    """Unit-variance noise [N, C, h, w], one seed per image, on the CPU, as ComfyUI draws it for a batch of one."""
    return torch.cat([_first_draw(_generator(seed), latent_shape(base, height, width)) for seed in seeds])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _first_draw(generator: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn((1, *shape), generator=generator)


def levels(base: Base, schedule: Schedule) -> list[Level]:
    """The noise level of each step, noisiest first: what :func:`npnet_core.redenoise.redenoise` goes down and up on."""
    return _levels(_scheduler(base, schedule))


def _levels(scheduler) -> list[Level]:
    # Second-order samplers list each step's intermediate evaluation too, PNDM its second step twice.
    timesteps = scheduler.timesteps[:: scheduler.order].unique_consecutive().tolist()
    return [Level.diffusion(_alpha_cumprod(scheduler.alphas_cumprod, t), t) for t in timesteps]


def _alpha_cumprod(alphas_cumprod: Tensor, t: float) -> float:
    """alphas_cumprod[t]; between two timesteps sigma / alpha is linear, as the schedulers take it."""
    whole, rest = int(t), t - int(t)
    if rest == 0:
        return alphas_cumprod[whole].item()
    low, high = ((1 / alphas_cumprod[i].item() - 1) ** 0.5 for i in (whole, whole + 1))
    return 1 / (1 + (low + rest * (high - low)) ** 2)


def evaluations(base: Base, schedule: Schedule) -> int:
    """Guided predictions that one image costs (Heun and KDPM2: 2n - 1, PNDM: n + 1)."""
    return len(_scheduler(base, schedule).timesteps)


def branches(base: Base, cfg: float) -> int:
    """Rows of the network that one guided prediction costs: 1 at cfg 1 or where cfg is an input (LCM), else 2."""
    return 1 if cfg == 1 or _takes_cfg(base) else 2


def shares_first(base: Base, schedule: Schedule) -> bool:
    """Whether sampling begins with the prediction at (noise, ``levels(…)[0]``), as ``first_denoised`` needs it.

    Not so where a scheduler starts from sigma · noise instead of √(1 + sigma²) · noise (trailing Euler, for one).
    """
    return _starts_at_noise(_scheduler(base, schedule))


def _starts_at_noise(scheduler) -> bool:
    one, first = torch.ones(1, device=scheduler.timesteps.device), scheduler.timesteps[0]
    return abs(scheduler.scale_model_input(one * scheduler.init_noise_sigma, first).item() - 1) < 1e-6


@torch.no_grad()
def predict(base: Base, x: Tensor, t: float, prompts: Prompts, cfg: float, control: Tensor | None = None) -> Tensor:
    """The network's guided raw output (:attr:`Base.prediction`), [B, C, h, w], fp32.

    Args:
        x: [B, C, h, w] in the variance-preserving form, on ``base.device``.
        t: timestep.
        prompts: B of them.
        cfg: guidance scale; 1 evaluates one branch.
        control: [B or 1, 3, H, W] in 0..1, the ControlNet's picture.
    """
    if len(prompts) != len(x):
        raise ValueError(f"{len(x)} latents and {len(prompts)} prompts: give one prompt per latent.")
    inputs, rows = prompts.cond, x.to(base.dtype)
    guided = branches(base, cfg) == 2
    if guided:
        uncond = {name: value.expand(len(x), *value.shape[1:]) for name, value in prompts.uncond.items()}
        inputs = {name: torch.cat([uncond[name], value]) for name, value in inputs.items()}
        rows = torch.cat([rows, rows])
    output = _network(base, rows, torch.tensor(t, device=x.device), inputs, cfg, control)
    output = output[:, : base.channels].float()  # Hunyuan-DiT appends a variance
    return guide(*output.chunk(2), cfg) if guided else output


def _network(base: Base, x: Tensor, t: Tensor, inputs: dict[str, Tensor], cfg: float, control: Tensor | None) -> Tensor:
    size = tuple(side * base.pixels for side in x.shape[-2:])
    if base.family == "hunyuan-dit":
        return _hunyuan_dit(base.network, x, t, inputs, size)
    told = {"encoder_hidden_states": inputs["prompt_embeds"]}
    if base.family == "sdxl":
        time_ids = x.new_tensor([*size, 0, 0, *size]).expand(len(x), 6)  # original size, crop, target size
        told["added_cond_kwargs"] = {"text_embeds": inputs["pooled"], "time_ids": time_ids}
    if control is not None:
        if base.controlnet is None:
            raise InputError(
                f"A control picture was given and {base.source} was loaded without a ControlNet: name one."
            )
        control = control.to(x).repeat(len(x) // len(control), 1, 1, 1)
        down, middle = base.controlnet(x, t, controlnet_cond=control, return_dict=False, **told)
        told |= {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    if _takes_cfg(base):
        scale = torch.tensor([cfg - 1.0])
        embedding = base.pipe.get_guidance_scale_embedding(scale, base.network.config.time_cond_proj_dim)
        told["timestep_cond"] = embedding.to(x).expand(len(x), -1)
    return base.network(x, t, return_dict=False, **told)[0]


def _hunyuan_dit(network: nn.Module, x: Tensor, t: Tensor, inputs: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    patch = network.config.patch_size
    grid = tuple(side // patch for side in x.shape[-2:])
    crops = get_resize_crop_region_for_grid(grid, 512 // 8 // patch)
    rotary = get_2d_rotary_pos_embed(
        network.inner_dim // network.num_heads, crops, grid, device=x.device, output_type="pt"
    )
    return network(
        x,
        t.to(x.dtype).expand(len(x)),  # its precision decides that of all embeddings
        encoder_hidden_states=inputs["prompt_embeds"],
        text_embedding_mask=inputs["mask"],
        encoder_hidden_states_t5=inputs["t5_embeds"],
        text_embedding_mask_t5=inputs["t5_mask"],
        image_meta_size=x.new_tensor([1024, 1024, *size, 0, 0]).repeat(len(x), 1),  # the pipeline's defaults
        style=torch.zeros(len(x), dtype=torch.long, device=x.device),
        image_rotary_emb=rotary,
        return_dict=False,
    )[0]


def _takes_cfg(base: Base) -> bool:
    """LCM's distilled UNets are told the guidance scale and were trained without a second branch."""
    return base.network.config.get("time_cond_proj_dim") is not None


def denoiser(base: Base, prompts: Prompts, control: Tensor | None = None) -> Denoiser:
    """The ``denoise(x, level, cfg)`` of :mod:`npnet_core.redenoise`, for B prompts and latents on ``base.device``."""

    def denoise(x: Tensor, level: Level, cfg: float) -> Tensor:
        return denoised_from(predict(base, x, level.t, prompts, cfg, control), x, level, base.prediction)

    return denoise


@torch.no_grad()
def sample(
    base: Base,
    noise: Tensor,
    prompts: Prompts,
    schedule: Schedule,
    cfg: float,
    *,
    seeds: Sequence[int] | None = None,
    first_denoised: Tensor | None = None,
    control: Tensor | None = None,
) -> Tensor:
    """Denoise: latents [B, C, h, w], fp32, on ``base.device``.

    Args:
        noise: [B, C, h, w], unit variance.
        prompts: B of them.
        seeds: one per image, needed by the :data:`STOCHASTIC` samplers; each image's stream goes on behind the draw
            that :func:`initial_noise` makes from the seed, as in diffusers' pipelines: no image depends on its batch.
        first_denoised: [K ≤ B, C, h, w], what ``denoiser(…)(noise, levels(…)[0], cfg)`` said for the first K images
            already: only the others are evaluated at the first step.
        control: as for :func:`predict`.

    Raises:
        InputError: a stochastic sampler got no seeds.
        ValueError: ``first_denoised`` with a schedule that does not start there (:func:`shares_first`).
    """
    scheduler = _scheduler(base, schedule)
    if first_denoised is not None and not _starts_at_noise(scheduler):
        raise ValueError(f"{schedule} does not start with a prediction at the noise itself: sample it without.")
    x = noise.to(base.device, torch.float32) * scheduler.init_noise_sigma
    extra = {}
    if schedule.sampler in STOCHASTIC:
        if seeds is None:
            raise InputError(f"Sampler {schedule.sampler} draws noise at every step: give one seed per image.")
        generators = [_generator(seed) for seed in seeds]
        for generator in generators:
            _first_draw(generator, x.shape[1:])
        extra["generator"] = generators
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t)
        known = 0 if i > 0 or first_denoised is None else len(first_denoised)
        predictions = []
        if known > 0:
            first = _levels(scheduler)[0]
            predictions.append(_prediction_from(first_denoised, scaled[:known], first, base.prediction))
        if known < len(x):
            shown = control if control is None or len(control) == 1 else control[known:]
            predictions.append(predict(base, scaled[known:], t.item(), prompts[known:], cfg, shown))
        x = scheduler.step(torch.cat(predictions), t, x, return_dict=False, **extra)[0]
    return x


def _prediction_from(denoised: Tensor, x: Tensor, level: Level, kind: str) -> Tensor:
    """The inverse of :func:`npnet_core.redenoise.denoised_from`."""
    eps = eps_from(x, denoised, level)
    if kind == "epsilon":
        return eps
    return eps - denoised if kind == "flow_prediction" else level.alpha * eps - level.sigma * denoised


@torch.no_grad()
def decode(base: Base, latents: Tensor, *, batch: int = 4) -> Tensor:
    """Images [B, H, W, 3] in 0..1, fp32, on the CPU, decoded ``batch`` at a time where the autoencoder is."""
    vae = base.pipe.vae
    images = []
    for chunk in latents.split(batch):
        decoded = vae.decode(chunk.to(vae.device, vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        images.append((decoded.float().cpu() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1))
    return torch.cat(images)


def _noise_schedule(base: Base) -> dict:
    """What the network was trained on, and where its steps lie; no settings of one sampler such as Karras' sigmas."""
    return {name: base.pipe.scheduler.config[name] for name in NOISE_SCHEDULE if name in base.pipe.scheduler.config}


def _scheduler(base: Base, schedule: Schedule):
    """A fresh diffusers scheduler with its timesteps set; it is stateful and good for one sampling."""
    import diffusers

    name, settings = SAMPLERS[schedule.sampler]
    cls = getattr(diffusers, name)
    known = inspect.signature(cls.__init__).parameters
    config = {"set_alpha_to_one": False, **_noise_schedule(base), **settings}
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in known:
        raise InputError(
            f"Sampler {schedule.sampler} cannot start from pure noise, as {base.source} was trained to: use ddim."
        )
    if schedule.spacing not in (None, "ays"):
        config["timestep_spacing"] = schedule.spacing
    scheduler = cls(**{key: value for key, value in config.items() if key in known})
    if schedule.spacing == "ays":
        scheduler.set_timesteps(timesteps=_ays(base, schedule, scheduler), device=base.device)
    else:
        try:
            scheduler.set_timesteps(schedule.steps, device=base.device)
        except ValueError as error:
            raise InputError(f"Sampler {schedule.sampler} cannot take {schedule.steps} steps: {error}") from error
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def _ays(base: Base, schedule: Schedule, scheduler) -> list[int]:
    """The ten timesteps of Align Your Steps."""
    from diffusers.schedulers import AysSchedules

    name = {"sdxl": "StableDiffusionXLTimesteps", "sd1": "StableDiffusionTimesteps"}.get(base.family)
    if name is None or "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise InputError(
            f"There is no ays spacing for a {base.family} model with sampler {schedule.sampler}: it exists for sdxl "
            "and sd1 with dpm-solver-multistep, euler, heun, ddpm or lcm."
        )
    return AysSchedules[name]
