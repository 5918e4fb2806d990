"""What a training step costs: ``python -m benchmarks.fit [--device cuda] [--rounds 7] [--steps 8]``.

``npnet fit`` beside two others that take turns with it, on the same pairs, net and machine:

- the released procedure, written from its description: pairs in memory, the base model loaded, every step encodes its
  prompts again and decomposes its noises;
- the bare network: forward and backward on tensors in memory, singular values included, no optimizer.

The net is small (16x16 latents). The base model has SDXL's classes with random weights, and its text encoders cost as
many times the net as SDXL's cost the published one; both ratios are printed. On a GPU also the published size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from npnet_core.config import MENDED, NPNetConfig
from npnet_core.flops import flops
from npnet_core.layers import decompose
from npnet_core.model import NPNet
from npnet_core.npd import Manifest, NPDReader, NPDWriter
from tests.tiny_pipelines import tiny_sdxl
from trainer import bases
from trainer.commands.fit import Options, run
from trainer.data.embeddings import Embeddings, store_embeddings
from trainer.data.prefetch import prefetch
from trainer.fitting.history import read_history
from trainer.fitting.pair_batches import Batches

from .timing import row, seconds

WIDTHS, LAYERS = (128, 256), 10  # of the text encoders
SMALL = {"swin_size": 64, "swin_dim": 48, "swin_depths": (2, 2, 2), "swin_heads": (2, 4, 8), "swin_window": 4}
WORDS = ("red", "blue", "green", "circle", "square", "left", "right", "of", "and", "one", "a", "the")


def make_dataset(folder: Path, base: str, pairs: int, side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    manifest = Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1, {"base_model": base})
    with NPDWriter(folder, manifest, worker="benchmark") as writer:
        for i in range(pairs):
            source, change = torch.randn(2, 4, side, side, generator=generator)
            prompt = " ".join(WORDS[int(k)] for k in torch.randint(len(WORDS), (12,), generator=generator))
            writer.add(source, source + 0.3 * change, prompt=f"{prompt} {i}", seed=i)


def options(dataset: Path, out: Path, device: str, pairs: int, steps: int, batch: int, **changes) -> Options:
    """A run of ``steps`` steps; the first row of its log is the warm-up."""
    epochs = -(-steps * batch // pairs)
    settings = {"scorer": ("none",), "validation": 0.0, "limit": steps * batch // epochs, "log_every": steps // 2}
    return Options(dataset, out, device=device, epochs=epochs, batch=batch, **settings | changes)


def fit_speed(options: Options) -> float:
    """Pairs per second of ``npnet fit``, without its first half."""
    run(options)
    return read_history(options.out / "log.jsonl")[1]["samples_per_second"]


def step_speed(step: Callable[[], object], steps: int, batch: int) -> float:
    """Pairs per second of a step that trains on ``batch`` pairs, without the first half of the steps."""
    times = [seconds(step) for _ in range(steps)]
    return batch * (steps - steps // 2) / sum(times[steps // 2 :])


def released(reader: NPDReader, base: bases.Base, npnet: NPNet, batch: int, first_only: bool) -> Callable[[], None]:
    """One step of the released procedure; ``first_only`` conditions the whole batch on its first prompt, as there."""
    source, target = (side.float().to(base.device) for side in reader.batch(range(len(reader))))
    prompts = [record.key.prompt for record in reader.records]
    optimizer = torch.optim.AdamW(npnet.parameters(), lr=1e-4)

    def step() -> None:
        chosen = torch.randint(len(reader), (batch,)).tolist()
        texts = [prompts[i] for i in chosen]
        embeds = bases.encode(base, texts[:1] if first_only else texts, batch=batch).prompt_embeds.float()
        golden = npnet(source[chosen], embeds.expand(batch, -1, -1))
        loss = F.mse_loss(golden, target[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def bare(npnet: NPNet, batch: int, device: str) -> Callable[[], None]:
    """Forward and backward on tensors that are there already."""
    c = npnet.config
    noise, target = torch.randn(2, batch, c.channels, c.resolution, c.resolution, device=device)
    prompt = torch.randn(batch, c.prompt_tokens, c.prompt_dim, device=device)
    svd = decompose(noise, c.tile, c.fixed_signs)

    def step() -> None:
        npnet.zero_grad()
        F.mse_loss(npnet(noise, prompt, svd), target).backward()

    return step


def side_by_side(folder: Path, device: str, rounds: int, steps: int, batch: int) -> None:
    base_folder, dataset, pairs = str(tiny_sdxl(folder / "base", WIDTHS, layers=LAYERS)), folder / "pairs", 512
    make_dataset(dataset, base_folder, pairs, 16)
    reader, base = NPDReader(dataset), bases.load_base(base_folder, device=device, precision="fp32")
    config = NPNetConfig(resolution=16, prompt_tokens=77, prompt_dim=sum(WIDTHS), **SMALL, **MENDED)
    nets = [NPNet(config).to(device).train() for _ in range(3)]
    steps_of_others = {
        "released procedure": released(reader, base, nets[0], batch, first_only=False),
        "released, first prompt for all": released(reader, base, nets[1], batch, first_only=True),
        "bare forward and backward": bare(nets[2], batch, device),
    }
    proportions(config, base)
    speeds: dict[str, list[float]] = {name: [] for name in ("npnet fit", *steps_of_others)}
    run(options(dataset, folder / "warm-up", device, pairs, steps, batch, **SMALL))  # encodes the prompts
    for i in range(rounds):
        speeds["npnet fit"].append(
            fit_speed(options(dataset, folder / f"run-{i}", device, pairs, steps, batch, **SMALL))
        )
        for name, step in steps_of_others.items():
            speeds[name].append(step_speed(step, steps, batch))
    for name, measured in speeds.items():
        row(f"{name}, {device}", f"{statistics.median(measured):.1f} pairs/s")

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(speeds["npnet fit"], speeds[name], strict=True))

    row("npnet fit / released procedure", f"{ratio('released procedure'):.2f}", "≥ 3")
    row("npnet fit / released, first prompt for all", f"{ratio('released, first prompt for all'):.2f}")
    row("time of npnet fit / bare", f"{1 / ratio('bare forward and backward'):.2f}", "≤ 1.3")


def proportions(config: NPNetConfig, base: bases.Base) -> None:
    """Floating point operations of encoding one prompt, per forward and backward of the net: SDXL's and here."""
    sdxl = encoder_flops((768, 3072, 12, 12), (1280, 5120, 32, 20)) / step_flops(NPNetConfig(**MENDED))
    encoders = (base.pipe.text_encoder.config, base.pipe.text_encoder_2.config)
    sizes = [(c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads) for c in encoders]
    here = encoder_flops(*sizes) / step_flops(config)
    row("operations per prompt / per training pair", f"SDXL {sdxl:.1f}, here {here:.1f}")


def encoder_flops(*sizes: tuple[int, int, int, int]) -> int:
    """Of CLIP's text encoder on 77 tokens: (width, inner width, layers, heads) each."""
    from transformers import CLIPTextConfig, CLIPTextModel

    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    with torch.device("meta"):
        encoders = [CLIPTextModel(CLIPTextConfig(**dict(zip(names, size, strict=True)))) for size in sizes]
        tokens = torch.zeros(1, 77, dtype=torch.long)
        return sum(flops(lambda encoder=encoder: encoder(tokens)) for encoder in encoders)


def step_flops(c: NPNetConfig) -> int:
    """Of forward and backward on one pair, without the SVD."""
    npnet, noise = NPNet(c), torch.randn(1, c.channels, c.resolution, c.resolution)
    prompt, svd = torch.randn(1, c.prompt_tokens, c.prompt_dim), decompose(noise, c.tile)
    return flops(lambda: npnet(noise, prompt, svd).sum().backward())


def preparation(folder: Path, threads: Sequence[int]) -> None:
    """How many pairs of the published size the threads beside the training prepare, alone on the machine."""
    make_dataset(folder / "large", "none", 64, 128)
    reader = NPDReader(folder / "large")
    prompts = [record.key.prompt for record in reader.records]
    store_embeddings(folder / "large", "none", prompts, torch.randn(len(prompts), 77, 2048))
    load = Batches(reader, Embeddings(folder / "large", "none"), NPNetConfig(**MENDED), torch.device("cpu"))
    for count in threads:
        chunks = [list(range(i % 64, i % 64 + 8)) for i in range(0, 64 * count, 8)]
        list(prefetch(load, chunks[:count], count))
        start = time.perf_counter()
        list(prefetch(load, chunks, count))
        speed = 8 * len(chunks) / (time.perf_counter() - start)
        row(f"pairs prepared at the published size, {count} threads", f"{speed:.0f} pairs/s")


def published_size(folder: Path, device: str, precision: str, steps: int) -> None:
    """The published net at batch 64, and what the paper's run would take."""
    out = folder / f"large-{precision}"
    speed = fit_speed(options(folder / "large", out, device, 64, steps, 64, base="none", precision=precision))
    hours = 100_000 * 30 / speed / 3600
    row(f"published size, batch 64, {precision}, {device}", f"{speed:.0f} pairs/s")
    row("100k pairs, 30 epochs", f"{hours:.1f} h")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="per round")
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    cores = torch.get_num_threads()
    print(f"torch {torch.__version__}, {cores} threads, medians of {given.rounds} rounds of {given.steps} steps")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        side_by_side(folder, given.device, given.rounds, given.steps, given.batch)
        preparation(folder, sorted({1, cores}))
        if given.device != "cpu":
            for precision in ("fp32", "bf16"):
                published_size(folder, given.device, precision, 40)
        else:
            row("published size, batch 64", "not measured", "needs a GPU")


if __name__ == "__main__":
    main()
