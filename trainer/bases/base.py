"""What a base model is: the contract that each family fulfils in a file of its own.

Everything between the parts is a tensor of one kind: latents and noise are fp32 [B, C, h, w] with unit variance at the
start, whatever a network, a scheduler or an autoencoder wants scaled, packed or unsqueezed; images are fp32
[B, H, W, 3] in 0..1; ``cfg`` is that of :func:`npnet_core.redenoising.guide`, whatever a pipeline counts.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from npnet_core.errors import InputError
from npnet_core.redenoising import Level
from trainer.bases.schedules import Guidance, Preset, Schedule

PARTS = {
    "text": ("text_encoder", "text_encoder_2", "text_encoder_3"),
    "network": ("unet", "transformer"),
    "vae": ("vae",),
}


@dataclass(frozen=True)
class Base(ABC):
    """A loaded base model. Made by :func:`trainer.bases.load_base`.

    A family derives from it and says how its prompts are encoded, what one prediction is, where its noise levels lie
    and how guidance enters; the properties below that are no longer true of it, it says anew.

    Attributes:
        source: what the user named.
        pipe: the diffusers pipeline that holds the parts. Its ``__call__`` is never used.
        device: where the network predicts.
        controlnet: the ControlNet that ``control`` pictures are for, or None.
        distilled: whether guidance is built into the weights, as the user or the model_index.json says; None where
            neither does.
        sibling: the model that re-denoises in its place, which it was distilled from, see
            :func:`trainer.bases.with_sibling`; or None.
        in_turns: whether its parts come to the device one after the other, because they do not fit together.
    """

    title: ClassVar[str]  # what people call the family
    pipeline: ClassVar[str]  # diffusers' class …
    components: ClassVar[dict[str, str | None]]  # … and what a model_index.json must name for it
    half: ClassVar[str] = "fp16"  # the precision on a GPU
    load_options: ClassVar[dict] = {}  # what loading the pipeline needs beside
    takes_additions: ClassVar[bool] = False  # whether LoRAs and ControlNets are supported
    takes_single_files: ClassVar[bool] = False  # whether single_file.py knows its layout
    takes_network_files: ClassVar[bool] = False  # whether network_file.py reads its transformer
    presets: ClassVar[dict[str, Preset]] = {}  # settings worth recommending for collecting, the default first

    source: str
    pipe: Any
    device: torch.device
    controlnet: nn.Module | None = None
    distilled: bool | None = None
    sibling: Base | None = None
    in_turns: bool = False

    @property
    @abstractmethod
    def family(self) -> str:
        """As in :class:`npnet_core.config.Config`: a kind of latent with a kind of prompt embedding."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The UNet or transformer."""

    @property
    @abstractmethod
    def prediction(self) -> str:
        """What :meth:`run_network` returns, one of :data:`npnet_core.redenoising.PREDICTIONS`."""

    @property
    @abstractmethod
    def prompt_dim(self) -> int:
        """D of the prompt embedding [N, T, D]."""

    @property
    @abstractmethod
    def noise_schedule(self) -> dict:
        """The settings, plain JSON, that its noise levels follow from; none of a single sampler such as Karras'."""

    @abstractmethod
    def check(self) -> None:
        """Raise InputError for a model that is built like the family's and cannot be used."""

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        """What the network is told with N prompts: tensors [N, …], ``prompt_embeds`` [N, T, D] among them, as ComfyUI
        has it for the same model in order, padding and layer. Computed where the text encoders are.

        Where ComfyUI's prompts differ in length, shorter ones are filled up with zeros and ``prompt_mask`` [N, T] bool
        says which tokens they have, first those, then the filling. A padding token that ComfyUI's network reads too
        (T5's, where it takes no mask) is a token. T may differ from call to call: whoever joins two fills up.
        """

    @abstractmethod
    def scheduler(self, schedule: Schedule, shape: tuple[int, int, int]):
        """A fresh diffusers scheduler with its timesteps set for latents (C, h, w); stateful, good for one sampling.

        Raises:
            InputError: for a sampler, a spacing or a number of steps that the model or the sampler does not have.
        """

    @abstractmethod
    def levels(self, scheduler) -> list[Level]:
        """The noise level of each of the scheduler's steps, noisiest first; ``t`` as the scheduler counts it."""

    @abstractmethod
    def run_network(
        self, x: Tensor, t: Tensor, inputs: dict[str, Tensor], cfg: float, control: Tensor | None
    ) -> Tensor:
        """The network's output for one branch, [B, C, h, w], any precision, in the convention of :attr:`prediction`.

        Args:
            x: [B, C, h, w] in the network's precision, as the scheduler scales it.
            t: timestep, [].
            inputs: of :meth:`encode_prompts`, B rows, perhaps filled up further. A network that takes no mask reads
                them with :func:`trainer.bases.prompts.by_length`.
            cfg: guidance scale, for a network that is told it.
            control: [B or fewer, 3, H, W] in 0..1, the ControlNet's picture.
        """

    def unconditional(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the network is told without a prompt, [1, …]: by default the empty prompt.

        Args:
            cond: of :meth:`encode_prompts`, for a family that only needs its shapes.
        """
        return self.encode_prompts([""])

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] → pictures [B, 3, H, W] in -1..1, where the autoencoder is, in its precision."""
        vae = self.pipe.vae
        latents = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        return vae.decode(latents + (vae.config.get("shift_factor") or 0), return_dict=False)[0]

    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in -1..1 → their likeliest latents [B, C, h, w]; the way back of the above."""
        vae = self.pipe.vae
        latents = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode()
        return (latents - (vae.config.get("shift_factor") or 0)) * vae.config.scaling_factor

    @property
    def guidance(self) -> Guidance:
        """How guidance enters."""
        return "none" if self.distilled else "cfg"

    @property
    def output_layer(self) -> str:
        """Name in :attr:`network` of its last layer, which turns features into the prediction."""
        return next(name for name in ("conv_out", "proj_out") if hasattr(self.network, name))

    @property
    def dtype(self) -> torch.dtype:
        """The network's precision."""
        return self.network.dtype

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return self.network.config.in_channels

    @property
    def pixels(self) -> int:
        """Image pixels per side of a latent pixel (8 for the published models)."""
        return self.pipe.vae_scale_factor

    @property
    def multiple(self) -> int:
        """What the sides of an image, in pixels, are multiples of."""
        return self.pixels

    @property
    def longest(self) -> int | None:
        """The most that a side of an image, in pixels, may have; None where the network knows no bound."""
        return None

    @property
    def size(self) -> int:
        """The side, in pixels, of the square images the network was made for."""
        return self.network.config.sample_size * self.pixels

    @property
    def prompt_tokens(self) -> int:
        """T of the prompt embedding [N, T, D]."""
        return self.pipe.tokenizer.model_max_length

    @property
    def clip_tokenizer(self):
        """The tokenizer that reads with CLIP's vocabulary, or None."""
        from transformers import CLIPTokenizer

        tokenizers = (part for part in self.pipe.components.values() if isinstance(part, CLIPTokenizer))
        return next(tokenizers, None)

    def modules(self, part: str) -> list[nn.Module]:
        """The modules of one of :data:`PARTS`."""
        modules = [getattr(self.pipe, name, None) for name in PARTS[part]]
        if part == "network":
            modules.append(self.controlnet)
        return [module for module in modules if module is not None]


def move(base: Base, part: str, device: str | torch.device) -> None:
    """Take the ``text`` encoders, the ``network`` (a sibling's, too) or the ``vae`` to a device; the rest stays.

    Encoding happens where the text encoders are and decoding where the autoencoder is; predictions need the network on
    ``base.device``. Which of them are there is settled when the model is loaded (``memory.py``).
    """
    for module in base.modules(part):
        module.to(device)
    if base.sibling is not None:
        move(base.sibling, part, device)


def fingerprint(base: Base, parts: Iterable[str] | None = None) -> str:
    """SHA-256 over the noise schedule and the first 32 numbers of every weight of every part, in the loaded precision;
    of some :data:`PARTS` over those alone.

    Cheap (no file is read again), and enough to tell models apart that were trained or merged differently. Names of
    weights stay out of it: they change between versions of the libraries. A sibling is another model.
    """
    digest = hashlib.sha256(json.dumps(base.noise_schedule, sort_keys=True).encode() if parts is None else b"")
    for part in PARTS if parts is None else parts:
        for module in base.modules(part):
            for weight in module.parameters():
                digest.update(str(tuple(weight.shape)).encode())
                digest.update(weight.detach().flatten()[:32].cpu().double().numpy().tobytes())
    return digest.hexdigest()


def latent_shape(base: Base, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
    """(C, h, w) of the latent of an image of height × width pixels, the network's own size by default.

    Raises:
        InputError: for sides that are no multiple of what the model can do, or longer.
    """
    height, width = height or base.size, width or base.size
    if height % base.multiple or width % base.multiple:
        raise InputError(
            f"An image of {width}x{height} pixels does not fit {base.source}: use multiples of {base.multiple} pixels."
        )
    if base.longest is not None and max(height, width) > base.longest:
        raise InputError(
            f"An image of {width}x{height} pixels is larger than {base.source} knows places for: use sides of at most "
            f"{base.longest} pixels."
        )
    return base.channels, height // base.pixels, width // base.pixels


def initial_noise(base: Base, seeds: Sequence[int], height: int | None = None, width: int | None = None) -> Tensor:
    """Unit-variance noise [N, C, h, w], one seed per image, on the CPU, as ComfyUI draws it for a batch of one."""
    shape = latent_shape(base, height, width)
    return torch.cat([first_draw(torch.Generator().manual_seed(seed), shape) for seed in seeds])


def first_draw(generator: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    """[1, C, h, w]: an image's initial noise."""
    return torch.randn((1, *shape), generator=generator)
