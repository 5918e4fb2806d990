"""Make the shipped weights anew: the autoencoder, the two detectors, then both text-to-image models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from npnet_core.preference.shapes.captions import BY_CAPTION
from npnet_core.preference.shapes.detectors import DETECTORS
from trainer.shapes import components as parts
from trainer.shapes import world
from trainer.shapes.flow_batches import chat_ids, hidden_states, velocity

UNPROMPTED = 0.1  # share of pictures trained without caption, for guidance
WIDE_SHARE = 4  # every fourth batch is of the second size
KL_WEIGHT = 1e-4
NOISE = 0.08  # standard deviation, in pixel values, of what the detectors must see through


@dataclass(frozen=True)
class Round:
    """Of training: its rate rises, stays and falls to zero; the next one begins with what this one leaves.

    Args:
        steps: batches of fresh pictures.
        lr: the highest learning rate.
        size: pictures in a batch.
    """

    steps: int
    lr: float
    size: int = 256


ROUNDS = {  # what the shipped weights were made with, on an H200
    "autoencoder": (Round(1708, 2e-3, 16),),
    "a": (Round(2727, 2e-3),),
    "b": (Round(1652, 2e-3, 512),),
    "stable diffusion": (Round(1786, 1.5e-3),),
    "z-image": (Round(2010, 1.5e-3), Round(1073, 1e-3), Round(848, 1e-3, 512)),
}


def retrain(folder: Path, seed: int = 0, device: str | torch.device = "cpu", rounds: Mapping = ROUNDS) -> None:
    """Train everything and write it, as the package ships it: minutes on a GPU, on two cores five hours and more.

    A picture takes 13 ms of one core for the U-Net, 17 for the transformer, 5 for detector A and 9 for B (measured on
    busy cores); with :data:`ROUNDS` that is ten hours of one core.

    Args:
        folder: gets ``base`` and ``flow``, pipeline folders, and a file per detector; all in fp16.
        seed: of weights and pictures; every part has its own, so the detectors saw different ones.
        rounds: of every part, see :data:`ROUNDS`.
    """
    vae = train_autoencoder(seed, device, *rounds["autoencoder"])
    for number, name in enumerate(DETECTORS):
        save_detector(train_detector(name, vae, seed + 100 + number, *rounds[name]), name, folder)
    save_pipeline(train_stable_diffusion(vae, seed + 200, *rounds["stable diffusion"]), folder / "base")
    save_pipeline(train_z_image(vae, seed + 300, *rounds["z-image"]), folder / "flow")


def save_detector(detector: nn.Module, name: str, folder: Path) -> None:
    """Write it in fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in detector.state_dict().items()}
    save_file(weights, folder / f"detector-{name}.safetensors")


def save_pipeline(pipe, folder: Path) -> None:
    """Write the parts in fp16, half the size; measured harmless."""
    pipe = copy.deepcopy(pipe)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.to("cpu", torch.float16)
    pipe.save_pretrained(folder)


def batches(
    round: Round, generator: torch.Generator, label: str
) -> Iterator[tuple[int, list[world.Scene], world.Pictures]]:
    """A round's batches of fresh pictures behind a progress bar.

    Yields:
        the step's number, the scenes, their pictures; every :data:`WIDE_SHARE`-th batch is of the second size.
    """
    scenes_generator = torch.Generator().manual_seed(generator.initial_seed())
    for step in trange(round.steps, desc=label, unit="step", smoothing=0.05):
        scenes = world.random_scenes(round.size, scenes_generator)
        shape = world.WIDE if step % WIDE_SHARE == WIDE_SHARE - 1 else world.SIZE
        yield step, scenes, world.draw(scenes, generator, shape)


def seeded(seed: int, device: str | torch.device) -> torch.Generator:
    """A generator on the device; torch's global one, which weights are drawn from, starts at the seed too."""
    torch.manual_seed(seed)
    return torch.Generator(device).manual_seed(seed)


def train_autoencoder(seed: int, device: str | torch.device, round: Round) -> nn.Module:
    """A plain KL autoencoder; then its latents are given zero mean and unit variance per channel."""
    generator = seeded(seed, device)
    vae = parts.autoencoder().to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), round.lr, betas=(0.9, 0.99))
    for step, _, (images, _) in batches(round, generator, "autoencoder"):
        x = to_network(images)
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.sample(generator)).sample
        loss = F.mse_loss(decoded, x) + KL_WEIGHT * posterior.kl().mean() / x[0].numel()
        descend(optimizer, loss, round, step)
    scenes = world.random_scenes(2048, torch.Generator().manual_seed(seed))
    normalise_latents(vae, to_network(world.draw(scenes, generator).images))
    return vae.requires_grad_(False)


@torch.no_grad()
def normalise_latents(vae, x: Tensor) -> None:
    """Fold zero mean and unit variance, per channel over the pictures x, into the 1x1 convolutions around the latent.

    What the autoencoder reconstructs stays the same.
    """
    latents = torch.cat([vae.encode(chunk).latent_dist.mode() for chunk in x.split(256)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)  # quant_conv makes the means, then the log variances
    vae.quant_conv.weight[:channels] /= std[:, None, None, None]
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - mean) / std
    vae.quant_conv.bias[channels:] -= 2 * std.log()
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    vae.post_quant_conv.weight *= std[None, :, None, None]


def train_detector(name: str, vae: nn.Module, seed: int, round: Round) -> nn.Module:
    """On real pictures, half of them through the autoencoder, with noise of any strength up to :data:`NOISE`."""
    generator = seeded(seed, vae.device)
    detector = DETECTORS[name]().to(vae.device)
    optimizer = torch.optim.AdamW(detector.parameters(), round.lr, betas=(0.9, 0.99))
    for step, scenes, (images, centres) in batches(round, generator, f"detector {name}"):
        half = len(images) // 2
        with torch.no_grad():
            images = torch.cat([reconstruct(vae, images[:half]), images[half:]])
        strength = NOISE * torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        loss = misjudgement(detector(images + strength * noise), world.Facts.of(scenes, images.device), centres)
        descend(optimizer, loss, round, step)
    return detector.eval()


def misjudgement(seen, facts: world.Facts, centres: Tensor) -> Tensor:
    """The detectors' loss: cross entropy of counts, sizes where the caption says one, and ground; misplacement."""
    rows, there = torch.arange(len(centres), device=centres.device)[:, None], facts.kinds >= 0
    kinds = facts.kinds.clamp(min=0)
    counts = F.cross_entropy(seen.counts.flatten(0, 1), facts.counts().flatten()) * seen.counts.shape[1]
    misplaced = (seen.centres[rows, kinds] - centres)[there] / world.SIZE[0]
    said = facts.size >= 0
    size = F.binary_cross_entropy_with_logits(seen.large[rows[:, 0], kinds[:, 0]][said], facts.size[said].float())
    ground = F.binary_cross_entropy_with_logits(seen.light, facts.ground.float())
    return counts + 8 * misplaced.square().mean() + size + ground


def train_stable_diffusion(vae: nn.Module, seed: int, *rounds: Round):
    """A Stable Diffusion that predicts v, its text encoder with it."""
    torch.manual_seed(seed)
    pipe = parts.stable_diffusion(vae)
    ids = {caption: pipe.tokenizer(caption, padding="max_length").input_ids for caption in ("", *BY_CAPTION)}
    alphas_cumprod = pipe.scheduler.alphas_cumprod.to(vae.device)
    networks = nn.ModuleDict({"unet": pipe.unet, "text": pipe.text_encoder}).to(vae.device)

    def loss(latents: Tensor, captions: list[str], u: Tensor, eps: Tensor) -> Tensor:
        t = (u * len(alphas_cumprod)).long()
        alpha, sigma = (value[t].sqrt()[:, None, None, None] for value in (alphas_cumprod, 1 - alphas_cumprod))
        tokens = torch.tensor([ids[caption] for caption in captions], device=latents.device)
        prompt_embeds = networks["text"](tokens).last_hidden_state
        predicted = networks["unet"](alpha * latents + sigma * eps, t, prompt_embeds).sample
        return F.mse_loss(predicted.float(), alpha * eps - sigma * latents)

    train_text_to_image(networks, vae, loss, seed, rounds, "stable diffusion")
    return pipe


def train_z_image(vae: nn.Module, seed: int, *rounds: Round):
    """A Z-Image, its text encoder with it, at the noise levels that its scheduler shifts an even spacing to."""
    torch.manual_seed(seed)
    pipe = parts.z_image(vae)
    ids = {caption: chat_ids(pipe.tokenizer, caption) for caption in ("", *BY_CAPTION)}
    shift = pipe.scheduler.config.shift
    networks = nn.ModuleDict({"transformer": pipe.transformer, "text": pipe.text_encoder}).to(vae.device)

    def loss(latents: Tensor, captions: list[str], u: Tensor, eps: Tensor) -> Tensor:
        sigma = shift * u / (1 + (shift - 1) * u)
        prompt_embeds, lengths = hidden_states(networks["text"], [ids[caption] for caption in captions])
        x = latents + sigma[:, None, None, None] * (eps - latents)
        predicted = velocity(networks["transformer"], x, sigma, prompt_embeds, lengths)
        return F.mse_loss(predicted.float(), eps - latents)

    train_text_to_image(networks, vae, loss, seed, rounds, "z-image")
    return pipe


def train_text_to_image(
    networks: nn.ModuleDict,
    vae: nn.Module,
    loss: Callable[[Tensor, list[str], Tensor, Tensor], Tensor],
    seed: int,
    rounds: Sequence[Round],
    label: str,
) -> None:
    """Network and text encoder together; what each round leaves in ``networks`` is their moving average.

    Args:
        loss: of latents [B, C, h, w], captions, B numbers in 0..1 spread evenly, and eps [B, C, h, w].
        seed: of the first round's pictures and noise; the next rounds count on.
    """
    for number, round in enumerate(rounds):
        generator = torch.Generator(vae.device).manual_seed(seed + number)
        train_round(networks, vae, loss, generator, round, f"{label}, round {number + 1} of {len(rounds)}")


def train_round(
    networks: nn.ModuleDict, vae: nn.Module, loss: Callable, generator: torch.Generator, round: Round, label: str
) -> None:
    """One round of :func:`train_text_to_image`."""
    device = vae.device
    average = [parameter.detach().clone() for parameter in networks.parameters()]
    optimizer = torch.optim.AdamW(networks.parameters(), round.lr, betas=(0.9, 0.99))
    for step, scenes, (images, _) in batches(round, generator, label):
        with torch.no_grad():
            latents = vae.encode(to_network(images)).latent_dist.mode()
        dropped = (torch.rand(round.size, generator=generator, device=device) < UNPROMPTED).tolist()
        captions = ["" if drop else scene.caption for scene, drop in zip(scenes, dropped, strict=True)]
        spread = torch.arange(round.size, device=device) / round.size  # every batch has early and late timesteps
        u = (spread + torch.rand(1, generator=generator, device=device)) % 1
        eps = torch.randn(latents.shape, generator=generator, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):  # CPUs emulate it
            value = loss(latents, captions, u, eps)
        descend(optimizer, value, round, step)
        with torch.no_grad():
            decay = min(0.998, step / (step + 20))
            torch._foreach_lerp_(average, list(networks.parameters()), 1 - decay)
    with torch.no_grad():
        for parameter, mean in zip(networks.parameters(), average, strict=True):
            parameter.copy_(mean)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, round: Round, step: int) -> None:
    """One step at a rate that warms up, stays, and falls to zero in the last 40 %."""
    progress = step / round.steps
    for group in optimizer.param_groups:
        group["lr"] = round.lr * min(1, progress / 0.03 + 0.02, (1 - progress) / 0.4)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()


def to_network(images: Tensor) -> Tensor:
    """[B, H, W, 3] in 0..1 → [B, 3, H, W] in -1..1."""
    return 2 * images.movedim(3, 1) - 1


def reconstruct(vae, images: Tensor) -> Tensor:
    """Through the autoencoder and back: [B, H, W, 3] in 0..1."""
    decoded = vae.decode(vae.encode(to_network(images)).latent_dist.mode()).sample
    return (decoded / 2 + 0.5).clamp(0, 1).movedim(1, 3)
