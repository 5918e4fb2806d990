"""Golden noise in a graph: Load NPNet, NPNet Golden Noise, NPNet Golden Noise (Model)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..npnet_core.adapter import AdapterConfig, Predictor
from ..npnet_core.checkpoint import load_npnet
from ..npnet_core.config import Config
from ..npnet_core.errors import InputError
from ..npnet_core.golden import LONG_PROMPT, check_noise, check_strength, golden_noise
from ..npnet_core.origin import trained_on
from .adapter import predictor_of
from .conditioning import at_full_noise, positive_of, prompt_of, start_at
from .folders import add_model_folder, fingerprint, list_files, model_path
from .latents import NESTED, image_noise
from .notice import notify
from .start_patch import GOLDEN, patched, starts_from_noise
from .versions import known, search_aliases

log = logging.getLogger(__name__)

FOLDER = "npnet"
add_model_folder(FOLDER, "npnets")  # other packs' users keep theirs in models/npnets

NPNetSocket = io.Custom("NPNET")
ACTIVATIONS = 200 * 2**20  # bytes, more than a pass needs beside the weights (benchmarks/apply.py prints it)


@dataclass(frozen=True)
class LoadedNPNet:
    """An NPNet in the hands of ComfyUI's memory management, which decides where its weights are."""

    patcher: ModelPatcher

    @property
    def config(self) -> Config:
        return self.patcher.model.config

    @property
    def is_adapter(self) -> bool:
        return isinstance(self.config, AdapterConfig)

    def golden_noise(
        self,
        noise: Tensor,
        prompt: tuple[Tensor, Tensor | None],
        strength: float,
        long_prompt: str,
        predictor: Predictor | None = None,
    ) -> Tensor:
        """As :func:`npnet_core.golden.golden_noise`, for a prompt of any batch and noise of one frame too; also raises
        the user's interrupt."""
        embeds, mask = (  # repeated as sampling does it
            None if part is None else comfy.utils.repeat_to_batch_size(part, len(noise)) for part in prompt
        )
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not self.is_adapter:  # whose weights go into the model's
            comfy.model_management.load_models_gpu([self.patcher], memory_required=ACTIVATIONS)
        golden = golden_noise(
            self.patcher.model,
            image_noise(noise),
            embeds,
            mask,
            strength=strength,
            long_prompt=long_prompt,
            device=self.patcher.load_device,
            predictor=predictor,
        )
        return golden.reshape(noise.shape)

    def check_noise(self, noise: Tensor) -> None:
        """Raise InputError for noise that this net cannot take."""
        check_noise(image_noise(noise), self.config.channels)


@dataclass(frozen=True)
class GoldenNoise:
    """A NOISE: the source's noise, made golden for a prompt. All-zero noise (DisableNoise) stays as it is."""

    npnet: LoadedNPNet
    source: object  # a NOISE
    conditioning: list
    strength: float
    long_prompt: str
    model: ModelPatcher | None = None  # of an adapter

    @property
    def seed(self) -> int:
        return self.source.seed

    def generate_noise(self, latent: dict) -> Tensor:
        noise = self.source.generate_noise(latent)
        self.npnet.check_noise(noise)
        if not noise.any():
            return noise
        start = at_full_noise(noise.shape)
        prompt = prompt_of(self.conditioning, self.npnet.config, start)
        predictor = predictor_of(self.model, self.conditioning, start) if self.npnet.is_adapter else None
        return self.npnet.golden_noise(noise, prompt, self.strength, self.long_prompt, predictor)


@dataclass(frozen=True)
class GoldenStart:
    """An OUTER_SAMPLE wrapper: sampling that starts from noise starts from golden noise."""

    npnet: LoadedNPNet
    strength: float
    long_prompt: str

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        if len(kwargs.get("latent_shapes") or ()) > 1:  # ComfyUI has packed them into one tensor
            raise InputError(NESTED)
        self.npnet.check_noise(noise)
        model_sampling = guider.model_patcher.get_model_object("model_sampling")
        positive = positive_of(guider.conds)
        if not (noise.any() and starts_from_noise(model_sampling, sigmas, latent_image)):
            log.info("NPNet: sampling does not start from noise here, so the noise is left as it is.")
        elif positive is None:
            notify(
                f"NPNet: sampling has conditionings {', '.join(guider.conds)} and no positive one, so the noise is "
                "left as it is: for golden noise, sample with a positive prompt."
            )
        else:
            start = start_at(guider.model_patcher, sigmas, noise.shape)
            prompt = prompt_of(positive, self.npnet.config, start)
            predictor = predictor_of(guider.model_patcher, positive, start) if self.npnet.is_adapter else None
            noise = self.npnet.golden_noise(noise, prompt, self.strength, self.long_prompt, predictor)
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


STRENGTH = io.Float.Input(
    "strength",
    default=1.0,
    min=0.0,
    max=2.0,
    step=0.01,
    tooltip="0: the source noise. 1: the golden noise. Between: a straight mix of both. Above 1 the change is "
    "exaggerated and the noise's variance grows, which costs quality.",
)
LONG_PROMPT_INPUT = io.Combo.Input(
    "long_prompt",
    options=list(LONG_PROMPT),
    default="truncate",
    tooltip="Prompts longer than 77 tokens. truncate: the first 77 count. average: the golden noises of all chunks, "
    "averaged. recurse: one chunk after the other. A U-Net reads every token whatever is chosen here.",
    **known(io.Combo.Input, advanced=True),
)


class NPNetLoad(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetLoad",
            display_name="Load NPNet",
            category="NPNet",
            description="Loads an NPNet, the small network that turns noise and a prompt into golden noise.",
            **search_aliases("load npnet, golden noise, noise prompt network, 黄金噪声"),
            inputs=[
                io.Combo.Input(
                    "npnet_name",
                    options=list_files(FOLDER),
                    tooltip="A file in models/npnet. It must belong to the base model of the graph (SDXL, HunyuanDiT).",
                )
            ],
            outputs=[NPNetSocket.Output(display_name="npnet", tooltip="For the NPNet Golden Noise nodes.")],
        )

    @classmethod
    def fingerprint_inputs(cls, npnet_name: str) -> str:
        return fingerprint(model_path(FOLDER, npnet_name))

    @classmethod
    def execute(cls, npnet_name: str) -> io.NodeOutput:
        offload_device = comfy.model_management.unet_offload_device()
        npnet = load_npnet(model_path(FOLDER, npnet_name), offload_device, comfy.ops.manual_cast)
        if origin := trained_on(npnet.metadata):
            notify(origin, logging.INFO)
        # ComfyUI's dynamic one where that is on, so that the net pushes no other model out: read now, for main.py binds
        # it anew, and only where it is there, from 0.12 on
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)
        return io.NodeOutput(LoadedNPNet(patcher(npnet, comfy.model_management.get_torch_device(), offload_device)))


class NPNetNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetNoise",
            display_name="NPNet Golden Noise",
            category="NPNet",
            description="Turns a noise into the golden noise of a prompt, for SamplerCustomAdvanced.",
            **search_aliases("golden noise, initial noise, better seed, noise prompt, 黄金噪声, 初始噪声, 种子"),
            inputs=[
                NPNetSocket.Input("npnet", tooltip="From Load NPNet."),
                io.Noise.Input("noise", tooltip="The source noise, usually RandomNoise; its seed is kept."),
                io.Conditioning.Input("conditioning", tooltip="The positive prompt that the image is sampled with."),
                STRENGTH,
                LONG_PROMPT_INPUT,
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only for an NPNet that is an adapter: the model that the image is sampled with, which "
                    "makes one prediction more.",
                ),
            ],
            outputs=[io.Noise.Output("golden_noise", display_name="noise", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        npnet: LoadedNPNet,
        noise,
        conditioning,
        strength: float,
        long_prompt: str,
        model: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        check_strength(strength)
        prompt_of(conditioning, npnet.config, at_full_noise())  # refused here, not on the sampler
        if npnet.is_adapter and model is None:
            raise InputError(
                "This NPNet is an adapter, which works inside its base model: connect the model that the image is "
                "sampled with, or use NPNet Golden Noise (Model)."
            )
        return io.NodeOutput(GoldenNoise(npnet, noise, conditioning, strength, long_prompt, model))


class NPNetModelPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetModelPatch",
            display_name="NPNet Golden Noise (Model)",
            category="NPNet",
            description="Lets every sampler that uses this model start from golden noise for its positive prompt. "
            "Where sampling does not start from noise (img2img, later stages) nothing changes.",
            **search_aliases("golden noise, initial noise, better seed, ksampler noise, 黄金噪声, 初始噪声, 种子"),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with or without LoRAs."),
                NPNetSocket.Input("npnet", tooltip="From Load NPNet."),
                STRENGTH,
                LONG_PROMPT_INPUT,
            ],
            outputs=[
                io.Model.Output("patched_model", display_name="model", tooltip="For KSampler and every other sampler.")
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, npnet: LoadedNPNet, strength: float, long_prompt: str) -> io.NodeOutput:
        check_strength(strength)
        return io.NodeOutput(patched(model, GOLDEN, GoldenStart(npnet, strength, long_prompt)))
