"""A net made of the base model against one from scratch, in the shapes world: what it learns, and what that is worth.

    python -m benchmarks.adapter base OUT --device cuda
    python -m benchmarks.adapter flow OUT --device cuda --depth 9 --cfg 3
    python -m benchmarks.adapter base OUT --pairs 320 --steps 20 --pictures 52 --choosing 12     # minutes on two cores

Collects pairs (fixed-point, --depth steps deep, guidance --cfg down and 1 back), fits U-Nets and adapters of several
ranks to as many steps of as many pairs, and samples pictures of captions that no net was fitted on. Detector A
chooses what is to be chosen, on fitting captions; detector B judges. Prints tables in Markdown, with intervals by
caption, and leaves nets, every score and ``tables.md`` in OUT. Nets are fitted in processes of their own, while
pictures without a net are made. Started again it goes on with the pairs, nets and scores that are in OUT, and refuses
those of other settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from npnet_core.adapter import Adapter
from npnet_core.architectures import GoldenNet, new_net
from npnet_core.checkpoint import load_npnet, save_npnet
from npnet_core.config import UNetConfig
from npnet_core.prompt_form import canonical
from npnet_core.redenoising import redenoise
from trainer import bases
from trainer.bases import Base, Prompts, Schedule
from trainer.evaluation.folder import claim
from trainer.shapes import WEIGHTS, world
from trainer.shapes.scorer import load_scorers

STEPS, INVERSION_CFG = 10, 1.0
STRONG = (3.0, 5.5)  # w* is the better of them
FIRST = dict.fromkeys((1, 2, 3), (3.0, 5.5, 7.5, 10.0))  # steps with guidance → scales to choose from
WIDTHS = (64, 96, 128)  # of the U-Net from scratch
HELD_OUT = 1000  # pairs of captions that no net is fitted on
LR, WARMUP = 1e-3, 30
MADE_WITH = ("base", "weights", "pairs", "steps", "batch", "pictures", "choosing", "depth", "cfg", "captions")


class Fit(NamedTuple):
    """A net to fit: ``unet``, or an adapter's rank; a share of all pairs; how many times the steps."""

    name: str
    rank: int | None
    share: float = 1.0
    longer: float = 1.0


FITS = (
    Fit("adapter, all weights", 0),
    Fit("adapter, rank 64", 64),
    Fit("adapter, rank 16", 16),
    Fit("adapter, rank 4", 4),
    Fit("U-Net", None),
    Fit("U-Net, eight times the steps", None, 1.0, 8.0),  # as many seconds as an adapter
    Fit("adapter, rank 64, a quarter of the pairs", 64, 1 / 4),
    Fit("adapter, rank 64, a sixteenth", 64, 1 / 16),
    Fit("U-Net, a quarter of the pairs", None, 1 / 4),
    Fit("U-Net, a sixteenth", None, 1 / 16),
)
MAIN = "adapter, rank 64"  # of which the controls are


@dataclass(frozen=True)
class World:
    """A base model with every caption encoded.

    Attributes:
        fitting, reported: rows of ``prompts``.
        depth, cfg: of the pairs: how many steps deep, and guidance down.
    """

    base: Base
    schedule: Schedule
    captions: list[str]
    fitting: list[int]
    reported: list[int]
    prompts: Prompts
    batch: int
    depth: int
    cfg: float


def load(folder: Path, device: str, batch: int, depth: int, cfg: float, captions: int | None = None) -> World:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    base = batched(bases.load_base(folder, device=device, precision="fp32"))
    base.network.to(memory_format=torch.channels_last)  # a sixth quicker on a CPU
    for part in bases.PARTS:
        for module in base.modules(part):
            module.requires_grad_(False)
    fitting, reported = (part[:captions] for part in world.split_captions())
    captions = [*fitting, *reported]
    schedule = Schedule("euler" if base.prediction == "flow_prediction" else "ddim", STEPS)
    rows = list(range(len(captions)))
    prompts = bases.encode(base, captions, batch=256)
    return World(base, schedule, captions, rows[: len(fitting)], rows[len(fitting) :], prompts, batch, depth, cfg)


def batched(base: Base) -> Base:
    """diffusers' Z-Image computes the prompts and patches of a batch one by one: for it, all at once."""
    if base.family != "z-image":
        return base
    from trainer.bases.z_image import ZImage
    from trainer.shapes import flow_batches

    class Batched(ZImage):
        def run_network(self, x, t, inputs, cfg, control):
            sigma = (t / 1000).expand(len(x))
            embeds, mask = inputs["prompt_embeds"], inputs["prompt_mask"]
            return flow_batches.velocity(self.network, x, sigma, embeds, mask.sum(1))

    return Batched(**{field.name: getattr(base, field.name) for field in dataclasses.fields(base)})


def chunks(count: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


# -- pairs ------------------------------------------------------------------------------------------------------------


class Pairs(NamedTuple):
    noise: Tensor  # [N, C, h, w]
    target: Tensor
    rows: Tensor  # [N] of the prompts


@torch.no_grad()
def collect(shapes: World, rows: Sequence[int], count: int, seed: int) -> Pairs:
    """Pairs of randomly chosen captions, each a noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.tensor(rows)[torch.randint(len(rows), (count,), generator=generator)]
    noise = torch.randn(count, *bases.latent_shape(shapes.base), generator=generator)
    return Pairs(noise, redenoised(shapes, noise, chosen), chosen)


@torch.no_grad()
def redenoised(shapes: World, noise: Tensor, rows: Tensor) -> Tensor:
    levels = bases.levels(shapes.base, shapes.schedule)
    settings = {"cfg": shapes.cfg, "inversion_cfg": INVERSION_CFG, "inversion": "fixed-point", "depth": shapes.depth}
    targets = []
    for part in tqdm(chunks(len(noise), shapes.batch), desc="re-denoising", unit="batch", leave=False):
        denoise = bases.denoiser(shapes.base, shapes.prompts[rows[part]])
        targets.append(redenoise(denoise, noise[part].to(shapes.base.device), levels, **settings).target.cpu())
    return torch.cat(targets)


# -- nets -------------------------------------------------------------------------------------------------------------


def start(shapes: World, fit: Fit) -> GoldenNet:
    torch.manual_seed(0)
    base, (channels, side, _) = shapes.base, bases.latent_shape(shapes.base)
    if fit.rank is None:
        embeds = shapes.prompts.prompt_embeds
        return new_net(UNetConfig(base.family, channels, side, *embeds.shape[1:], widths=WIDTHS))
    level = bases.levels(base, shapes.schedule)[0]
    return Adapter(bases.adapter_config(base, fit.rank, level, shapes.cfg, side))


def golden(shapes: World, npnet: nn.Module, noise: Tensor, rows: Tensor) -> Tensor:
    """[B, C, h, w] on the base model's device, with gradients where they are enabled."""
    prompts = shapes.prompts[rows]
    if isinstance(npnet, Adapter):
        return npnet(noise, bases.predictor_of(shapes.base, prompts))
    return npnet(noise, *canonical(shapes.base.family, prompts.prompt_embeds, prompts.prompt_mask))


@torch.no_grad()
def in_batches(shapes: World, npnet: GoldenNet, noise: Tensor, rows: Tensor) -> Tensor:
    device = shapes.base.device
    parts = [
        golden(shapes, npnet, noise[part].to(device), rows[part]).cpu() for part in chunks(len(noise), shapes.batch)
    ]
    return torch.cat(parts)


def explains(shapes: World, npnet: GoldenNet, pairs: Pairs) -> float:
    found = in_batches(shapes, npnet, pairs.noise, pairs.rows)
    error, change = (F.mse_loss(x, pairs.target).item() for x in (found, pairs.noise))
    return 1 - error / change


def fit_net(loading: tuple, out: Path, fit: Fit, steps: int, batch: int) -> dict:
    """Fit one net to the pairs in OUT; its row of the table.

    Args:
        loading: what :func:`load` is called with.
    """
    shapes, pairs = load(*loading), torch.load(out / "pairs.pt", weights_only=True)
    fitting, held_out = (Pairs(*pairs[name]) for name in ("fitting", "held out"))
    count, steps = max(batch, round(fit.share * len(fitting.rows))), round(fit.longer * steps)
    noise, target, rows = (value[:count].to(shapes.base.device) for value in fitting)
    npnet = start(shapes, fit).to(shapes.base.device)
    optimizer = torch.optim.AdamW(npnet.parameters(), LR, betas=(0.9, 0.99), weight_decay=0.01)
    generator, began = torch.Generator().manual_seed(1), time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, (step + 1) / WARMUP, 2 * (steps - step) / steps)
        j = torch.randint(count, (batch,), generator=generator).to(noise.device)
        loss = F.mse_loss(golden(shapes, npnet, noise[j], rows[j]), target[j])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(npnet.parameters(), 1.0)
        optimizer.step()
    loss.item()
    seconds = time.perf_counter() - began
    save_npnet(npnet, out / f"{fit.name}.safetensors", {"npnet.provenance": "benchmarks.adapter"})
    seen = Pairs(*(value[: min(count, HELD_OUT)].cpu() for value in (noise, target, rows)))
    row = {
        "net": fit.name,
        "trained numbers": f"{sum(parameter.numel() for parameter in npnet.parameters()):,}",
        "pairs": f"{count:,}",
        "steps": f"{steps:,} of {batch}",
        "seconds": f"{seconds:.0f}",
        "explains, held out": f"{explains(shapes, npnet, held_out):.1%}",
        "explains, seen": f"{explains(shapes, npnet, seen):.1%}",
    }
    (out / f"{fit.name}.json").write_text(json.dumps(row), encoding="utf-8")
    return row


# -- pictures ---------------------------------------------------------------------------------------------------------


class Scores(NamedTuple):
    """Of every picture, [N] each."""

    b: Tensor  # log-likelihood, detector B
    right: Tensor  # captions right, detector B
    a: Tensor  # log-likelihood, detector A


@dataclass(frozen=True)
class Pictures:
    """Noises of some captions, ``seeds`` of each one after the other, and who scores what becomes of them."""

    shapes: World
    scorers: tuple
    rows: Tensor  # [N]
    noise: Tensor  # [N, C, h, w]
    seeds: int

    @classmethod
    def of(cls, shapes: World, scorers: tuple, rows: Sequence[int], count: int, seed: int) -> Pictures:
        """At least ``count`` of them, of as many captions as there are, each as often as the others."""
        seeds = -(-count // len(rows))
        captions = torch.tensor(rows[: -(-count // seeds)])
        chosen = captions.repeat_interleave(seeds)
        generator = torch.Generator().manual_seed(seed)
        return cls(
            shapes,
            scorers,
            chosen,
            torch.randn(len(chosen), *bases.latent_shape(shapes.base), generator=generator),
            seeds,
        )

    @torch.no_grad()
    def score(self, noise: Tensor, cfg: float | Sequence[float] = 1.0, steps: int = STEPS) -> Scores:
        shapes, found = self.shapes, []
        schedule = dataclasses.replace(shapes.schedule, steps=steps)
        for part in chunks(len(noise), shapes.batch):
            latents = bases.sample(shapes.base, noise[part], shapes.prompts[self.rows[part]], schedule, cfg)
            images = bases.decode(shapes.base, latents, batch=len(latents))
            texts = [shapes.captions[row] for row in self.rows[part].tolist()]
            found.append([scorer.score(images, texts).float().cpu() for scorer in self.scorers])
        return Scores(*map(torch.cat, zip(*found, strict=True)))

    def other_rows(self) -> Tensor:
        """Another caption for every picture, for the wrong-prompt control."""
        return self.rows.roll(self.seeds * (len(self.rows) // self.seeds // 2))


def first(k: int, w: float) -> list[float]:
    """Guidance w on the first k steps, none on the others."""
    return [w] * k + [1.0] * (STEPS - k)


def best_of_two(one: Scores, two: Scores) -> Scores:
    """Whichever picture A prefers."""
    return Scores(*(torch.where(two.a > one.a, second, before) for before, second in zip(one, two, strict=True)))


class Method(NamedTuple):
    """A way to make pictures.

    Attributes:
        predictions: of the base model, for a picture.
        score: makes them; takes what was scored before.
    """

    predictions: float
    score: Callable[[dict[str, Scores]], Scores]


def choose(pictures: Pictures) -> dict[str, float]:
    """Guidance that A prefers on fitting captions: ``w*`` throughout, and ``1``, ``2``, ``3`` on the first steps."""
    liked = {w: pictures.score(pictures.noise, w).a.mean().item() for w in STRONG}
    chosen = {"w*": max(liked, key=liked.get)}
    for k, weights in FIRST.items():
        liked = {w: pictures.score(pictures.noise, first(k, w)).a.mean().item() for w in weights}
        chosen[str(k)] = max(liked, key=liked.get)
    return chosen


def plain_methods(pictures: Pictures, chosen: dict[str, float]) -> tuple[dict[str, Method], dict[str, Method]]:
    """Everything without a net: what others are compared with, ordinary noise at guidance 1 first; and the rest."""
    best, x, shapes = chosen["w*"], pictures.noise, pictures.shapes

    def plain(cfg: float | list[float], steps: int = STEPS) -> Callable[[dict], Scores]:
        return lambda _: pictures.score(x, cfg, steps)

    def another(before: dict[str, Scores]) -> Scores:
        other = torch.randn(x.shape, generator=torch.Generator().manual_seed(999))
        return best_of_two(before["ordinary"], pictures.score(other))

    def target(cfg: float) -> Callable[[dict], Scores]:
        return lambda _: pictures.score(redenoised(shapes, x, pictures.rows), cfg)

    methods = {"ordinary": Method(STEPS, plain(1.0))}
    for w in STRONG:
        methods[f"guidance {w:g}" + " (w*)" * (w == best)] = Method(2 * STEPS, plain(w))
    for k in FIRST:
        methods[f"guidance {chosen[str(k)]:g} on the first {k}"] = Method(STEPS + k, plain(first(k, chosen[str(k)])))
    predictions = STEPS + shapes.depth * 4  # 2 down, and 2 back without guidance
    methods["re-denoised"] = Method(predictions, target(1.0))
    others = {}
    for steps in (2, 3, 5, 6):
        others[f"guidance {best:g}, {steps} steps"] = Method(2 * steps, plain(best, steps))
    others["best of 2 by A"] = Method(2 * STEPS, another)
    for steps in (4, 6, 11, 13, 20, 22):
        others[f"{steps} steps"] = Method(steps, plain(1.0, steps))
    others["re-denoised, guidance w*"] = Method(predictions + STEPS, target(best))
    return methods, others


# -- statistics -------------------------------------------------------------------------------------------------------


def resample(values: Sequence[Tensor], seeds: int, statistic: Callable[..., Tensor], draws: int = 2000) -> tuple:
    """(value, low, high): a statistic of means over pictures, with its 95 % interval by bootstrap over captions."""
    means = torch.stack([value.double().view(-1, seeds).mean(1) for value in values])  # [K, captions]
    captions = torch.randint(means.shape[1], (draws, means.shape[1]), generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([row[captions].mean(1) for row in means])
    low, high = statistic(*drawn).quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return statistic(*means.mean(1)).item(), low, high


def interval(values: tuple, digits: int = 2, factor: float = 1) -> str:
    value, low, high = (f"{factor * number:+.{digits}f}" for number in values)
    return f"{value} [{low}, {high}]"


def wins(better: Tensor, worse: Tensor) -> Tensor:
    return (better > worse).double() + 0.5 * (better == worse).double()


def table(rows: Sequence[dict]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row.get(name, "")) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def worth(methods: dict[str, tuple[float, Scores]], best: float, seeds: int) -> list[dict]:
    """The table of what each method's pictures are worth, against ordinary noise without guidance."""
    ordinary, strong = methods["ordinary"][1], methods[f"guidance {best:g} (w*)"][1]
    target = wins(methods["re-denoised"][1].b, ordinary.b)
    one_step = next(scores for name, (_, scores) in methods.items() if name.endswith("on the first 1"))
    rows = []
    for name, (predictions, scores) in methods.items():
        row = {
            "noise, guidance of the pictures": name,
            "predictions": f"{predictions:g}",
            "B": f"{scores.b.mean():.2f}",
            "captions right": f"{scores.right.mean():.1%}",
        }
        if scores is not ordinary:
            row |= {
                "B against ordinary": interval(resample([scores.b - ordinary.b], seeds, lambda d: d)),
                "A against ordinary": interval(resample([scores.a - ordinary.a], seeds, lambda d: d)),
                "wins": interval(resample([wins(scores.b, ordinary.b)], seeds, lambda d: d), 3).replace("+", ""),
                "wins, share of re-denoised's": interval(
                    resample([wins(scores.b, ordinary.b), target], seeds, lambda a, b: (a - 0.5) / (b - 0.5))
                ),
                "share of w*'s gain": interval(
                    resample([scores.b - ordinary.b, strong.b - ordinary.b], seeds, lambda a, b: a / b)
                ),
                "B against w*": interval(resample([scores.b - strong.b], seeds, lambda d: d)),
                "right against w*, points": interval(
                    resample([scores.right - strong.right], seeds, lambda d: d), 1, 100
                ),
                "B against guidance on the first step": interval(resample([scores.b - one_step.b], seeds, lambda d: d)),
            }
        rows.append(row)
    head = {key: "" for row in rows for key in row}
    return [head | row for row in rows]


# -- all together -----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a folder among the weights of the shapes world: base or flow")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=330)
    parser.add_argument("--batch", type=int, default=512, help="pairs of a step")
    parser.add_argument("--chunk", type=int, default=1024, help="pictures at once")
    parser.add_argument("--pictures", type=int, default=2640)
    parser.add_argument("--choosing", type=int, default=600, help="pictures of fitting captions to choose guidance on")
    parser.add_argument("--workers", type=int, default=8, help="processes that fit")
    parser.add_argument("--depth", type=int, default=8, help="of the pairs")
    parser.add_argument("--cfg", type=float, default=4.0, help="of the pairs, down")
    parser.add_argument("--captions", type=int, help="the first of each part only")
    parser.add_argument("--fits", nargs="*", choices=[fit.name for fit in FITS], default=[fit.name for fit in FITS])
    options = parser.parse_args()
    claim(options.out, (0, 1), {name: str(getattr(options, name)) for name in MADE_WITH})
    began, folder = time.perf_counter(), options.weights / options.base

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - began:.0f} s] {text}", flush=True)

    loading = (folder, options.device, options.chunk, options.depth, options.cfg, options.captions)
    shapes = load(*loading)
    if not (options.out / "pairs.pt").exists():
        say("collecting")
        pairs = {"fitting": collect(shapes, shapes.fitting, options.pairs, 11)}
        pairs["held out"] = collect(shapes, shapes.reported, min(HELD_OUT, options.pairs), 12)
        torch.save({name: tuple(value) for name, value in pairs.items()}, options.out / "pairs.pt")
    scorers = load_scorers(options.weights, options.device)
    pictures = Pictures.of(shapes, scorers, shapes.reported, options.pictures, 777)
    record = Record.read(options, pictures)
    say("fitting, and pictures without a net")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context) as pool:
        fits = {fit.name: fit for fit in FITS if fit.name in options.fits}
        jobs = [
            pool.submit(fit_net, loading, options.out, fit, options.steps, options.batch)
            for fit in fits.values()
            if not (options.out / f"{fit.name}.json").exists()
        ]
        record.chosen = record.chosen or choose(Pictures.of(shapes, scorers, shapes.fitting, options.choosing, 778))
        plain, others = plain_methods(pictures, record.chosen)
        record.add(plain)
        for name in [name for name in fits if (options.out / f"{name}.json").exists()]:
            record.add_net(fits[name])
        for job in as_completed(jobs):
            record.add_net(fits[job.result()["net"]])
        record.add(others)
    print((options.out / "tables.md").read_text(encoding="utf-8"))
    say("done")


@dataclass
class Record:
    """What OUT/scores.json holds.

    Attributes:
        chosen: see :func:`choose`.
        methods: name → (predictions, scores).
        nets: name → its row of the first table.
    """

    options: argparse.Namespace
    pictures: Pictures
    chosen: dict[str, float]
    methods: dict[str, tuple[float, Scores]]
    nets: dict[str, dict]

    @classmethod
    def read(cls, options: argparse.Namespace, pictures: Pictures) -> Record:
        """As an earlier run left it, or empty."""
        if not (options.out / "scores.json").exists():
            return cls(options, pictures, {}, {}, {})
        found = json.loads((options.out / "scores.json").read_text(encoding="utf-8"))
        methods = {name: (each[0], Scores(*map(torch.tensor, each[1:]))) for name, each in found["methods"].items()}
        return cls(options, pictures, found["chosen"], methods, found["nets"])

    def add(self, methods: dict[str, Method]) -> None:
        """Make and score the pictures of those that are not there yet, and write OUT/tables.md and OUT/scores.json."""
        for name, method in methods.items():
            if name not in self.methods:
                scores = method.score({name: scores for name, (_, scores) in self.methods.items()})
                self.methods[name] = method.predictions, scores
                self.write()

    def add_net(self, fit: Fit) -> None:
        """The same for a net that is fitted."""
        self.nets[fit.name] = json.loads((self.options.out / f"{fit.name}.json").read_text(encoding="utf-8"))
        self.add(net_methods(self.options.out, self.pictures, fit, self.chosen["w*"]))

    def write(self) -> None:
        options, pictures = self.options, self.pictures
        shapes, count = pictures.shapes, len(pictures.rows)
        text = (
            f"{base_name(shapes)}: {options.pairs:,} pairs of {len(shapes.fitting):,} captions, {options.depth} deep "
            f"at guidance {options.cfg:g}; {count:,} pictures of {count // pictures.seeds} captions that no net is "
            f"fitted on, {STEPS} steps, {options.device}; B judges, A chooses; 95 % by caption."
        )
        fits = [self.nets[fit.name] for fit in FITS if fit.name in self.nets]
        tables = [table(fits)] if fits else []
        if len(self.methods) >= len(STRONG) + 1 + len(FIRST) + 1:  # all that others are compared with
            tables.append(table(worth(self.methods, self.chosen["w*"], pictures.seeds)))
        (options.out / "tables.md").write_text("\n\n".join([text, *tables]) + "\n", encoding="utf-8")
        methods = {name: [predictions, *map(Tensor.tolist, each)] for name, (predictions, each) in self.methods.items()}
        found = {"seeds": pictures.seeds, "chosen": self.chosen, "nets": self.nets, "methods": methods}
        (options.out / "scores.json").write_text(json.dumps(found), encoding="utf-8")


def net_methods(out: Path, pictures: Pictures, fit: Fit, best: float) -> dict[str, Method]:
    """Of a net; of two with controls."""
    npnet = load_npnet(out / f"{fit.name}.safetensors", pictures.shapes.base.device)
    own = fit.rank is not None  # prediction

    def golden(rows: Tensor, cfg: float = 1.0, steps: int = STEPS) -> Callable[[dict], Scores]:
        return lambda _: pictures.score(made(pictures, npnet, rows), cfg, steps)

    methods = {fit.name: Method(STEPS + own, golden(pictures.rows))}
    if fit.name == MAIN or fit.rank == 0:
        methods[f"{fit.name}, for another caption"] = Method(STEPS + own, golden(pictures.other_rows()))
        for steps in (3, 5):
            methods[f"{fit.name}, {steps} steps"] = Method(steps + own, golden(pictures.rows, 1.0, steps))
        methods[f"{fit.name}, guidance w*"] = Method(2 * STEPS + own, golden(pictures.rows, best))
    return methods


def made(pictures: Pictures, npnet: GoldenNet, rows: Tensor) -> Tensor:
    return in_batches(pictures.shapes, npnet, pictures.noise, rows)


def base_name(shapes: World) -> str:
    return f"{shapes.base.title}, {sum(weight.numel() for weight in shapes.base.network.parameters()):,} weights"


if __name__ == "__main__":
    main()
