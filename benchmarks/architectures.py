"""Which network learns golden noise, and by which loss? ``python -m benchmarks.architectures DATASET [--seconds 120]``.

DATASET holds pairs of the shapes world, for the captions that choices are made on (see ``docs/experiments.md`` for the
command). Every network sees the same pairs for the same processor time. 60 captions are held out; what a net explains
of their pairs' change is the first figure, what its golden noise does to pictures of them, with new seeds, the others.
With scores in the dataset (``--losses``), one U-Net is fitted by several losses instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.other_architectures import ModulatedUNet, Transformer
from benchmarks.shapes import in_batches, scored
from benchmarks.timing import median_seconds
from npnet_core.architectures import new_net
from npnet_core.config import MENDED, Config, NPNetConfig, UNetConfig
from npnet_core.diagnostics import dependence, explained, whiteness
from npnet_core.npd import NPDReader
from trainer import bases
from trainer.bases import Base
from trainer.evaluation.statistics import compare
from trainer.fitting.epoch_order import epoch_order
from trainer.fitting.noise_pairs import squared_error
from trainer.fitting.training import lr_factor
from trainer.shapes.pipeline_stages import SMALL_SWIN, Models, load_models
from trainer.shapes.world import SIZE
from trainer.shapes.worlds import WORLDS, World

HELD_OUT = 60  # captions, the last of those that choices are made on
SEEDS = range(1_000_000, 2_000_000)  # of the pictures: neither collected nor reported
CFG = 1.0  # of the pictures: the strong setting


@dataclass(frozen=True)
class Pairs:
    """Of B pairs.

    Args:
        source, target: [B, C, H, W].
        prompt_embeds: [B, T, D].
        margin: [B], by how much the target's picture scored higher; None without scores.
    """

    source: Tensor
    target: Tensor
    prompt_embeds: Tensor
    margin: Tensor | None

    def __getitem__(self, indices) -> Pairs:
        """Some of them."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Pairs(*(None if value is None else value[indices] for value in values))


def architectures(shape: Config) -> dict[str, Callable[[], nn.Module]]:
    """About 0.7 M parameters each."""
    common = {
        name: getattr(shape, name) for name in ("family", "channels", "resolution", "prompt_tokens", "prompt_dim")
    }
    side, given = shape.resolution, (shape.channels, shape.prompt_dim)
    swin = SMALL_SWIN | {"swin_dim": 64}
    return {
        "published, with its quirks": lambda: new_net(NPNetConfig(**common, **swin)),
        "published, mended": lambda: new_net(NPNetConfig(**common, **swin, **MENDED)),
        "U-Net, two levels": lambda: new_net(UNetConfig(**common, widths=(64, 128))),
        "U-Net, three levels": lambda: new_net(UNetConfig(**common, widths=(64, 64, 96))),
        "one level": lambda: new_net(UNetConfig(**common, widths=(96,), blocks=3)),
        "U-Net, prompt by scale and shift": lambda: ModulatedUNet(*given, (64, 96)),
        "transformer": lambda: Transformer(given[0], side, given[1], 96, 4, convolutions=False),
        "transformer with convolutions": lambda: Transformer(given[0], side, given[1], 96, 3, convolutions=True),
    }


def error(golden: Tensor, pairs: Pairs) -> Tensor:
    return squared_error(golden, pairs.target)


def coloured(golden: Tensor) -> Tensor:
    """[B, C, H, W] → [B], 0 for white noise: squares of the variance's excess and of neighbours' covariances."""
    excess = golden.square().mean((1, 2, 3)) - 1
    x = (golden[..., 1:] * golden[..., :-1]).mean((1, 2, 3))
    y = (golden[..., 1:, :] * golden[..., :-1, :]).mean((1, 2, 3))
    return excess.square() + x.square() + y.square()


# (golden, pairs) → loss of each pair, [B]
LOSSES: dict[str, Callable[[Tensor, Pairs], Tensor]] = {
    "all pairs alike (eq. 8)": error,
    "pairs that helped": lambda golden, pairs: 2 * (pairs.margin > 0) * error(golden, pairs),
    "weight: margin above 0": lambda golden, pairs: pairs.margin.clamp(min=0) * error(golden, pairs),
    "weight: sigmoid of the margin": lambda golden, pairs: 2 * pairs.margin.sigmoid() * error(golden, pairs),
    "penalty on colour": lambda golden, pairs: error(golden, pairs) + 0.1 * coloured(golden),
}


def fit(net: nn.Module, pairs: Pairs, loss: Callable, seconds: float, batch: int = 64, lr: float = 2e-3) -> int:
    """AdamW until so much processor time is spent; the rate falls to 0 with it. Returns the number of steps."""
    optimizer = torch.optim.AdamW(net.parameters(), lr, betas=(0.9, 0.99))
    count, start, step, order = len(pairs.source), time.process_time(), 0, []
    net.train()
    while (progress := (time.process_time() - start) / seconds) < 1:
        if len(order) < batch:
            order = epoch_order(count, 0, step)
        chunk, order = pairs[order[:batch]], order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = lr * lr_factor(int(1000 * progress) + 1, 1000, 20, "cosine")
        optimizer.zero_grad()
        loss(net(chunk.source, chunk.prompt_embeds), chunk).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
    net.eval()
    return step


def read(dataset: Path, world: World, base: Base) -> tuple[Pairs, Pairs]:
    """Pairs to fit on and pairs of held-out captions."""
    reader = NPDReader(dataset)
    captions = world.captions()[0]
    prompts = bases.encode(base, captions)
    number = {caption: i for i, caption in enumerate(captions)}
    caption = torch.tensor([number[record.key.prompt] for record in reader.records])
    source, target = (noise.float() for noise in reader.batch(range(len(reader))))
    scores = reader.scores(world.selects) if world.selects in reader.scorers else None
    margin = None if scores is None else scores[:, 1] - scores[:, 0]
    pairs = Pairs(source, target, prompts.prompt_embeds[caption], margin)
    held_out = caption >= len(captions) - HELD_OUT
    return pairs[~held_out], pairs[held_out]


class Pictures:
    """What a net does to pictures of the held-out captions, with noises that nothing was fitted on.

    Args:
        count: how many.
    """

    def __init__(self, world: World, models: Models, count: int):
        self.reports, captions = world.reports, world.captions()[0][-HELD_OUT:]
        self.captions = captions = [captions[i % HELD_OUT] for i in range(count)]
        self.prompts = bases.encode(models.base, captions)
        self.wrong_prompts = self.prompts[[*range(1, count), 0]]
        self.noise = bases.initial_noise(models.base, SEEDS[:count], *SIZE)
        schedule = world.recipe.schedule
        self.score = scored(models.base, models.scorers, captions, self.prompts, schedule, CFG)
        self.standard = self.score(self.noise)

    def figures(self, net: nn.Module) -> dict[str, str]:
        """Column → figure."""
        golden, other = (golden_of(net, self.noise, prompts) for prompts in (self.prompts, self.wrong_prompts))
        made, right = self.score(golden), "captions-right"
        seconds = median_seconds(lambda: golden_of(net, self.noise[:50], self.prompts[:50]), 3)
        return {
            "prompt dependence": f"{dependence(self.noise, golden, other):.2f}",
            "variance": f"{whiteness(golden).variance:.3f}",
            "ms per image": f"{1000 * seconds / 50:.1f}",
            "wins": self.wins(made),
            "captions right": f"{made[right].mean():.3f} ({self.standard[right].mean():.3f})",
            "wins, wrong prompt": self.wins(self.score(other)),
        }

    def wins(self, made: Mapping[str, Tensor]) -> str:
        c = compare(self.standard[self.reports].tolist(), made[self.reports].tolist(), self.captions)
        return f"{c.wins:.3f} [{c.wins_low:.3f}, {c.wins_high:.3f}]"


def golden_of(net: nn.Module, noise: Tensor, prompts: bases.Prompts) -> Tensor:
    return in_batches(lambda x, p: net(x, p.prompt_embeds), noise, prompts)


def explained_by(net: nn.Module, pairs: Pairs) -> float:
    """Of the first 2,000 pairs."""
    some = pairs[:2000]
    with torch.no_grad():
        return explained(some.source, some.target, net(some.source, some.prompt_embeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--base", choices=("sd", "first"), default="sd", help="of the pairs")
    parser.add_argument("--seconds", type=float, default=120, help="processor time for each fit")
    parser.add_argument("--pairs", type=int, default=800, help="pictures of each kind")
    parser.add_argument("--losses", action="store_true", help="one U-Net, several losses; needs scores")
    parser.add_argument("--widths", type=int, nargs="+", help="instead of all, one U-Net of these widths")
    options = parser.parse_args()

    world = WORLDS[options.base]()
    models = load_models(world)
    training, held_out = read(options.dataset, world, models.base)
    shape = UNetConfig(models.base.family, *training.source.shape[1:3], *training.prompt_embeds.shape[1:])
    nets, losses = architectures(shape), LOSSES
    if options.widths:
        config = dataclasses.replace(shape, widths=tuple(options.widths))
        rows = [(f"U-Net {config.widths}", lambda: new_net(config), losses["all pairs alike (eq. 8)"])]
    elif options.losses:
        rows = [(name, nets["U-Net, three levels"], loss) for name, loss in losses.items()]
    else:
        rows = [(name, net, losses["all pairs alike (eq. 8)"]) for name, net in nets.items()]
    pictures = Pictures(world, models, options.pairs)
    print(
        f"{len(training.source):,} pairs to fit on, {len(held_out.source):,} held out, {options.seconds:g} s each, "
        f"{torch.get_num_threads()} threads; guidance {CFG:g}, {world.recipe.schedule.steps} steps, "
        f"N = {options.pairs}\n"
    )
    for i, (name, new, loss) in enumerate(rows):
        torch.manual_seed(0)
        net = new()
        steps = fit(net, training, loss, options.seconds)
        row = {
            "net": name,
            "parameters": f"{sum(parameter.numel() for parameter in net.parameters()) / 1e6:.2f} M",
            "steps": steps,
            "explains": f"{explained_by(net, held_out):.1%}",
            "of training": f"{explained_by(net, training):.1%}",
        } | pictures.figures(net)
        if i == 0:
            print("|", " | ".join(row), "|\n" + "|---" * len(row) + "|")
        print("|", " | ".join(map(str, row.values())), "|", flush=True)


if __name__ == "__main__":
    main()
