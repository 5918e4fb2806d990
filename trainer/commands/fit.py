"""``npnet fit``: a noise prompt dataset → an NPNet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from npnet_core.errors import InputError
from npnet_core.preference import KINDS
from trainer.bases import SAMPLERS, SPACINGS
from trainer.commands import base_model
from trainer.commands.options import option, required
from trainer.fitting.fit import fit
from trainer.fitting.settings import NetSettings, NoisePairs, Reward, Runtime, Settings, Training, flag


@dataclass(frozen=True)
class Options:
    """Train an NPNet on a noise prompt dataset or, for a few-step model, on preference models; or train one further.

    npnet fit --dataset datasets/sdxl --out runs/sdxl
    npnet fit --dataset datasets/hunyuan --out runs/hunyuan --init models/npnet/sdxl.safetensors
    npnet fit --objective reward --base models/turbo --prompts prompts.txt --scorer hpsv2.1 --out runs/turbo
    npnet fit --dataset datasets/sdxl --out runs/adapter --arch adapter --batch 8 --accumulate 8
    torchrun --nproc-per-node 4 -m trainer fit --config fit.toml

    Stopped at any moment and started again with the same command it goes on where it was, to the bit. The net is
    OUT/npnet.safetensors. The defaults are the paper's.
    """

    objective: Literal["pairs", "reward"] = option(
        "pairs", "pairs: golden noise of a dataset's sources is its targets; reward: images that preference models like"
    )
    dataset: Path | None = option(None, "the dataset's folder, for pairs")
    out: Path = required("the run's folder: the net, its log, its checkpoints")
    base: str | None = option(
        None,
        "base model whose text encoder reads the prompts (default: the dataset's own); for reward: the few-step model",
        path=True,
    )
    base_config: str | None = option(None, base_model.CONFIG, path=True)

    scorer: tuple[str, ...] | None = option(
        None,
        "keep pairs whose target every one of them prefers (default: the dataset's own); none: keep all; for reward: "
        f"KIND or KIND=FILE, any number of preference models to train on; kinds: {', '.join(KINDS)}",
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

    prompts: Path | None = option(None, "for reward: txt, csv, tsv, json, jsonl or parquet file, or a folder of them")
    column: str | None = option(None, "of the prompts (default: prompt, prompts or caption)")
    weight: tuple[float, ...] | None = option(
        None, "of each scorer (default: as published: 5 for HPSv2.1's cosine, 1 for ImageReward, .05 for PickScore)"
    )
    watch: tuple[str, ...] | None = option(
        None, "preference models that are only watched, or none (default: one that is on this machine)"
    )
    penalty: float = option(Reward.penalty, "of what the net adds to the noise, against the rewards")
    reward_clip: float = option(Reward.reward_clip, "largest norm of an image's gradient by its golden noise")
    sampler: str = option(Reward.sampler, f"of the images, one of {', '.join(SAMPLERS)}")
    denoising_steps: int = option(Reward.denoising_steps, "of an image, 1 or 2")
    spacing: str | None = option(
        None, f"of the steps, one of {', '.join(SPACINGS)} (default: trailing; flow models have their own)"
    )
    cfg: float = option(Reward.cfg, "guidance of the images; 1: none")
    height: int | None = option(None, "of the images in pixels (default: the base model's own)")
    width: int | None = option(None, "of the images in pixels (default: the base model's own)")
    stop: bool = option(Reward.stop, "end once the scores that are trained on rise while those that are watched fall")

    init: Path | None = option(None, "an NPNet file to start from")
    arch: Literal["npnet", "unet", "adapter"] | None = option(
        None,
        "npnet: the published architecture (default); unet: a U-Net that reads every token, at any size; adapter: the "
        "base model's own network, which costs a prediction more and needs it in memory",
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
    rank: int | None = option(None, "of an adapter's LoRA; 0: a difference of every weight instead (default: 64)")
    base_precision: Literal["fp32", "bf16", "fp16"] | None = option(
        None, "of an adapter's network (default: fp32 on the CPU, else bf16; for reward that of --precision)"
    )

    epochs: int = option(Training.epochs, "times that every pair, or prompt, is seen")
    batch: int = option(Training.batch, "pairs, or prompts, at once, per process")
    accumulate: int = option(Training.accumulate, "batches per step of the optimizer")
    lr: float = option(Training.lr, "learning rate of AdamW")
    weight_decay: float = option(Training.weight_decay, "of AdamW")
    warmup: int = option(Training.warmup, "steps until the learning rate is reached")
    schedule: Literal["constant", "cosine"] = option(Training.schedule, "of the learning rate; cosine falls to 0")
    clip: float | None = option(None, "largest norm of the gradient (default: not clipped)")
    ema: float = option(
        Training.ema, "decay of a moving average of the weights, which then is the result, such as 0.999"
    )
    precision: Literal["fp32", "bf16"] = option(
        Training.precision, "of the network, for reward of the base model too; singular values stay in fp32"
    )
    compile: bool = option(False, "torch.compile the network")
    seed: int = option(Training.seed, "of new weights, held-out prompts, order and stochastic depth")

    device: str | None = option(None, base_model.DEVICE)
    workers: int | None = option(None, "threads that prepare batches (default: 1 on the CPU, up to 16 for a GPU)")
    checkpoint_every: float = option(Runtime.checkpoint_every, "minutes between checkpoints; 0: after every step")
    keep: int = option(Runtime.keep, "checkpoints that are kept")
    log_every: int = option(Runtime.log_every, "steps between two rows of the log")
    validate_every: int | None = option(None, "steps between two looks at the held-out prompts (default: every epoch)")
    tensorboard: bool = option(False, "log to OUT/tensorboard too")
    wandb: str | None = option(None, "log to this Weights & Biases project too")
    checkpointing: bool = option(
        Runtime.checkpointing,
        "of an adapter's network, and of what a reward goes through: compute activations twice instead of keeping them",
    )


def run(options: Options) -> None:
    fit(settings_from(options))


def settings_from(options: Options) -> Settings:
    """The options as the library's values, whose fields have their names."""

    def part(kind: type):
        return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})

    kind, other = (NoisePairs, Reward) if options.objective == "pairs" else (Reward, NoisePairs)
    ours = {field.name for field in dataclasses.fields(kind)} | {"objective"}
    theirs = [field.name for field in dataclasses.fields(other) if field.name not in ours]
    if strange := [flag(name) for name in theirs if getattr(options, name) != getattr(Options, name)]:
        raise InputError(
            f"{', '.join(strange)} came, which the objective {options.objective} does not have: leave it out, or "
            "choose another --objective."
        )
    if kind is NoisePairs and options.dataset is None:
        raise InputError("No dataset came to learn from: name its folder with --dataset, or choose --objective reward.")
    return Settings(options.out, part(kind), part(NetSettings), part(Training), part(Runtime))
