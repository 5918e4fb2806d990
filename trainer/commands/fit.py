"""``npnet fit``: a noise prompt dataset → an NPNet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.commands import base_model
from trainer.commands.options import option, required
from trainer.fitting.fit import fit
from trainer.fitting.settings import NetSettings, NoisePairs, Runtime, Settings, Training


@dataclass(frozen=True)
class Options:
    """Train an NPNet on a noise prompt dataset, or train one further.

    npnet fit --dataset datasets/sdxl --out runs/sdxl
    npnet fit --dataset datasets/hunyuan --out runs/hunyuan --init models/npnet/sdxl.safetensors
    torchrun --nproc-per-node 4 -m trainer fit --config fit.toml

    Stopped at any moment and started again with the same command it goes on where it was, to the bit. The net is
    OUT/npnet.safetensors. The defaults are the paper's.
    """

    dataset: Path = required("the dataset's folder")
    out: Path = required("the run's folder: the net, its log, its checkpoints")
    base: str | None = option(
        None, "base model whose text encoder reads the prompts (default: the dataset's own)", path=True
    )
    base_config: str | None = option(None, base_model.CONFIG, path=True)

    scorer: tuple[str, ...] | None = option(
        None, "keep pairs whose target every one of them prefers (default: the dataset's own); none: keep all"
    )
    margin: tuple[float, ...] = option(
        NoisePairs.margin, "by how much, in the scorer's units; one, or one for each scorer"
    )
    limit: int | None = option(None, "train on at most so many pairs")
    validation: float = option(NoisePairs.validation, "share of the prompts that is held out")
    skip_corrupt: bool = option(False, "leave damaged parts of the dataset out")
    cache: bool = option(
        NoisePairs.cache,
        "keep encoded prompts beside the dataset; --no-cache: encode those of every batch, and say its cost",
    )

    init: Path | None = option(None, "an NPNet file to start from")
    arch: Literal["npnet", "unet"] | None = option(
        None, "npnet: the published architecture (default); unet: a U-Net that reads every token, at any size"
    )
    swin_weights: Path | None = option(None, "an ImageNet Swin (timm's names) to start from")
    published_quirks: bool = option(
        False, "compute what the published nets compute: features misread, signs as they come"
    )
    without: tuple[Literal["svd", "text", "residual"], ...] = option((), "leave terms of eq. 9 out")
    resolution: int | None = option(None, "side of the net's view in latent pixels (default: the dataset's)")
    swin_size: int | None = option(None, "side of the Swin's picture (default: 224)")
    swin_dim: int | None = option(None, "width of the Swin's first stage (default: 96)")
    swin_depths: tuple[int, ...] | None = option(None, "blocks per stage (default: 2 2 6 2)")
    swin_heads: tuple[int, ...] | None = option(None, "heads per stage (default: 3 6 12 24)")
    swin_window: int | None = option(None, "side of the Swin's windows (default: 7)")
    drop_path: float | None = option(None, "stochastic depth of the Swin (default: 0.1)")
    widths: tuple[int, ...] | None = option(None, "of a U-Net: features per level (default: 64 128 256 256)")
    blocks: int | None = option(None, "of a U-Net: blocks per level, each way (default: 1)")

    epochs: int = option(Training.epochs, "times that every pair is seen")
    batch: int = option(Training.batch, "pairs at once, per process")
    accumulate: int = option(Training.accumulate, "batches per step of the optimizer")
    lr: float = option(Training.lr, "learning rate of AdamW")
    weight_decay: float = option(Training.weight_decay, "of AdamW")
    warmup: int = option(Training.warmup, "steps until the learning rate is reached")
    schedule: Literal["constant", "cosine"] = option(Training.schedule, "of the learning rate; cosine falls to 0")
    clip: float | None = option(None, "largest norm of the gradient (default: not clipped)")
    ema: float = option(
        Training.ema, "decay of a moving average of the weights, which then is the result, such as 0.999"
    )
    precision: Literal["fp32", "bf16"] = option(Training.precision, "of the network; singular values stay in fp32")
    compile: bool = option(False, "torch.compile the network")
    seed: int = option(Training.seed, "of new weights, held-out prompts, order and stochastic depth")

    device: str | None = option(None, base_model.DEVICE)
    workers: int | None = option(None, "threads that prepare batches (default: 1 on the CPU, up to 16 for a GPU)")
    checkpoint_every: float = option(Runtime.checkpoint_every, "minutes between checkpoints; 0: after every step")
    keep: int = option(Runtime.keep, "checkpoints that are kept")
    log_every: int = option(Runtime.log_every, "steps between two rows of the log")
    tensorboard: bool = option(False, "log to OUT/tensorboard too")
    wandb: str | None = option(None, "log to this Weights & Biases project too")


def run(options: Options) -> None:
    fit(settings_from(options))


def settings_from(options: Options) -> Settings:
    """The options as the library's values, whose fields have their names."""

    def part(kind: type):
        return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})

    return Settings(options.out, part(NoisePairs), part(NetSettings), part(Training), part(Runtime))
