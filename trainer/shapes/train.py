"""Make the shipped weights anew: the autoencoder, the detector, the text-to-image model, in this order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from trainer.shapes import components as parts
from trainer.shapes import world
from trainer.shapes.scorer import Detector

UNPROMPTED = 0.1  # share of pictures trained without caption, for guidance
WIDE_SHARE = 4  # every fourth batch is of the second size
KL_WEIGHT = 1e-4
NOISE = 0.08  # standard deviation, in pixel values, of what the detector must see through


def retrain(folder: Path, seed: int = 0) -> None:
    """Train everything (at most 20 minutes on two cores) and write it, as the package ships it.

    Args:
        folder: gets ``base``, a pipeline folder, and ``detector.safetensors``; both in fp16.
        seed: of weights and pictures.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pipe = parts.pipeline()
    train_autoencoder(pipe.vae, generator)
    detector = train_detector(pipe.vae, generator)
    train_text_to_image(pipe, generator)
    save(folder, pipe, detector)


def save(folder: Path, pipe, detector: Detector) -> None:
    """Write the parts in fp16, half the size; measured harmless."""
    pipe = copy.deepcopy(pipe)
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.half()
    pipe.save_pretrained(folder / "base")
    weights = {name: value.half().contiguous() for name, value in detector.state_dict().items()}
    save_file(weights, folder / "detector.safetensors")


def batches(
    steps: int, size: int, generator: torch.Generator, label: str
) -> Iterator[tuple[float, list, world.Pictures]]:
    """``steps`` batches of fresh pictures behind a progress bar.

    Yields:
        progress in 0..1, the scenes, their pictures; every :data:`WIDE_SHARE`-th batch is of the second size.
    """
    for step in trange(steps, desc=label, unit="step", smoothing=0.05):
        scenes = world.random_scenes(size, generator)
        shape = world.WIDE if step % WIDE_SHARE == WIDE_SHARE - 1 else world.SIZE
        yield step / steps, scenes, world.draw(scenes, generator, shape)


def train_autoencoder(vae, generator: torch.Generator, steps: int = 400) -> None:
    """A plain KL autoencoder; then its latents are given zero mean and unit variance per channel."""
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.99))
    for progress, _, (images, _) in batches(steps, 64, generator, "autoencoder"):
        x = to_network(images)
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.sample(generator)).sample
        loss = F.mse_loss(decoded, x) + KL_WEIGHT * posterior.kl().mean() / x[0].numel()
        descend(optimizer, loss, 2e-3, progress)
    normalise_latents(vae, to_network(world.draw(world.random_scenes(2048, generator), generator).images))
    vae.requires_grad_(False)


@torch.no_grad()
def normalise_latents(vae, x: Tensor) -> None:
    """Fold zero mean and unit variance, per channel over the pictures x, into the 1x1 convolutions around the latent.

    What the autoencoder reconstructs stays the same.
    """
    latents = vae.encode(x).latent_dist.mode()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)  # quant_conv makes the means, then the log variances
    vae.quant_conv.weight[:channels] /= std[:, None, None, None]
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - mean) / std
    vae.quant_conv.bias[channels:] -= 2 * std.log()
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    vae.post_quant_conv.weight *= std[None, :, None, None]


def train_detector(vae, generator: torch.Generator, steps: int = 900) -> Detector:
    """On real pictures, half of them through the autoencoder, with noise of any strength up to :data:`NOISE`."""
    detector = Detector()
    optimizer = torch.optim.AdamW(detector.parameters(), 1.5e-3, betas=(0.9, 0.99))
    for progress, scenes, (images, centres) in batches(steps, 64, generator, "detector"):
        half = len(images) // 2
        with torch.no_grad():
            images = torch.cat([reconstruct(vae, images[:half]), images[half:]])
        strength = NOISE * torch.rand(len(images), 1, 1, 1, generator=generator)
        seen = detector(images + strength * torch.randn(images.shape, generator=generator))
        rows = torch.arange(len(scenes))[:, None]
        kinds = torch.tensor([(scene.first, scene.second) for scene in scenes])
        expected = torch.zeros_like(seen.presence)
        expected[rows, kinds] = 1
        misplaced = (seen.centres[rows, kinds] - centres) / world.SIZE[0]
        loss = F.binary_cross_entropy_with_logits(seen.presence, expected) + 8 * misplaced.square().mean()
        descend(optimizer, loss, 1.5e-3, progress)
    return detector.eval()


def train_text_to_image(pipe, generator: torch.Generator, steps: int = 3600) -> None:
    """UNet and text encoder together, at all noise levels; what stays is their moving average."""
    tokens = {scene: pipe.tokenizer(scene.caption, padding="max_length").input_ids for scene in world.SCENES}
    unprompted = pipe.tokenizer("", padding="max_length").input_ids
    alphas_cumprod = pipe.scheduler.alphas_cumprod
    networks = nn.ModuleDict({"unet": pipe.unet, "text": pipe.text_encoder}).to(memory_format=torch.channels_last)
    average = copy.deepcopy(networks)
    optimizer = torch.optim.AdamW(networks.parameters(), 1e-3, betas=(0.9, 0.99))
    for progress, scenes, (images, _) in batches(steps, 32, generator, "text to image"):
        with torch.no_grad():
            latents = pipe.vae.encode(to_network(images)).latent_dist.mode()
        dropped = (torch.rand(len(scenes), generator=generator) < UNPROMPTED).tolist()
        ids = [unprompted if drop else tokens[scene] for scene, drop in zip(scenes, dropped, strict=True)]
        spread = torch.arange(len(scenes)) / len(scenes)  # every batch has early and late timesteps
        t = ((spread + torch.rand(1, generator=generator)) % 1 * len(alphas_cumprod)).long()
        alpha = alphas_cumprod[t].sqrt()[:, None, None, None]
        sigma = (1 - alphas_cumprod[t]).sqrt()[:, None, None, None]
        eps = torch.randn(latents.shape, generator=generator)
        x = (alpha * latents + sigma * eps).contiguous(memory_format=torch.channels_last)
        velocity = alpha * eps - sigma * latents
        prompt_embeds = networks["text"](torch.tensor(ids)).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):  # a quarter faster on two cores
            predicted = networks["unet"](x, t, prompt_embeds).sample
        loss = F.mse_loss(predicted.float(), velocity)
        descend(optimizer, loss, 1e-3, progress)
        with torch.no_grad():
            decay = min(0.998, progress * steps / (progress * steps + 20))
            for mean, value in zip(average.parameters(), networks.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
    networks.to(memory_format=torch.contiguous_format).load_state_dict(average.state_dict())


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, progress: float) -> None:
    """One step at a rate that warms up, stays, and falls to zero in the last 40 %."""
    for group in optimizer.param_groups:
        group["lr"] = lr * min(1, progress / 0.03 + 0.02, (1 - progress) / 0.4)
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
