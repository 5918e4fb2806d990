"""What a fit needs to know, as values: what it learns from, the net, the training, and what no weight depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from npnet_core.adapter import AdapterConfig
from npnet_core.config import NPNetConfig, UNetConfig
from npnet_core.errors import InputError

# Settings that shape a new net of each architecture, by their names in its config; None is what the config says.
SHAPES = {
    NPNetConfig.architecture: ("resolution", "swin_size", "swin_dim", "swin_depths", "swin_heads", "swin_window"),
    UNetConfig.architecture: ("widths", "blocks"),
    AdapterConfig.architecture: ("rank",),
}
NOT_COMPILED = "--compile came for an adapter, whose network is called with hooks: leave it out."
MOST_STEPS = 2  # that a reward is differentiated through

SHAPE = tuple(name for names in SHAPES.values() for name in names)

# Other settings that are specific to an architecture.
SPECIFIC = {
    NPNetConfig.architecture: ("without", "published_quirks", "swin_weights", "drop_path"),
    UNetConfig.architecture: (),
    AdapterConfig.architecture: ("base_precision",),
}


def check_least(settings: object, least: Mapping[str, float]) -> None:
    """Raise InputError for a number below the least one."""
    for name, value in least.items():
        if not getattr(settings, name) >= value:  # NaN too
            raise InputError(f"{flag(name)} {getattr(settings, name)} came: give at least {value}.")


def flag(name: str) -> str:
    """A setting's name on the command line."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class NoisePairs:
    """To learn from the pairs of a dataset (eq. 8 of the paper).

    Args:
        dataset: its folder.
        base: base model whose text encoder reads the prompts; None for the dataset's own.
        base_config: for a single-file base model, a diffusers folder or hub id of its kind.
        scorer, margin: as for :func:`trainer.fitting.selection.select`; None for the scorer that the dataset has.
        limit: train on at most so many pairs.
        validation: share of the prompts that is held out.
        skip_corrupt: leave damaged parts of the dataset out.
        cache: keep the encoded prompts beside the dataset; False encodes those of a batch whenever it comes.
    """

    dataset: Path
    base: str | None = None
    base_config: str | None = None
    scorer: tuple[str, ...] | None = None
    margin: tuple[float, ...] = (0.0,)
    limit: int | None = None
    validation: float = 0.05
    skip_corrupt: bool = False
    cache: bool = True


@dataclass(frozen=True)
class Reward:
    """To learn from preference models, by their gradient through a few-step base model; no dataset is needed
    (HyperNoise, arXiv 2508.09968).

    Args:
        base: the base model, as for :func:`trainer.bases.load_base`.
        base_config: for a single-file base model, a diffusers folder or hub id of its kind.
        prompts, column: as for :func:`trainer.data.prompts.read_prompts`.
        scorer: those that are trained on, ``KIND`` or ``KIND=FILE``.
        weight: of each of them; None for :data:`trainer.fitting.reward.WEIGHTS`.
        watch: those that are only watched, ``("none",)`` for none; None for one that is on this machine.
        penalty: λ of λ·½·mean(f²), where f is what the net adds to the noise.
        reward_clip: largest norm of an image's gradient with respect to its golden noise.
        sampler, denoising_steps, spacing: how images are made, 1 or 2 steps; where they lie: None for trailing, which
            begins at pure noise, and for flow models for what their shift says.
        cfg: guidance scale, 1 for none.
        height, width: of the images in pixels; None for the base model's own.
        validation: share of the prompts that is held out.
        stop: end the run early once trained-on scores rise while the watched ones fall.

    Raises:
        InputError: for what makes no run.
    """

    objective: Literal["reward"] = "reward"
    base: str | None = None
    base_config: str | None = None
    prompts: Path | None = None
    column: str | None = None
    scorer: tuple[str, ...] | None = None
    weight: tuple[float, ...] | None = None
    watch: tuple[str, ...] | None = None
    penalty: float = 1.0
    reward_clip: float = 1.0
    sampler: str = "euler"
    denoising_steps: int = 1
    spacing: str | None = None
    cfg: float = 1.0
    height: int | None = None
    width: int | None = None
    validation: float = 0.05
    stop: bool = True

    def __post_init__(self) -> None:
        for name, words in (("base", "a few-step model"), ("prompts", "a prompt file"), ("scorer", "what to train on")):
            if not getattr(self, name):
                raise InputError(f"The objective reward came without {flag(name)}: name {words}.")
        if self.weight is not None and len(self.weight) != len(self.scorer):
            raise InputError(
                f"{len(self.weight)} weights came for {len(self.scorer)} scorers: give one for each, or leave them out."
            )
        if not 1 <= self.denoising_steps <= MOST_STEPS:
            raise InputError(
                f"--denoising-steps {self.denoising_steps} came: give 1 or 2, for through more steps the reward's "
                "gradient says little of the noise; the net may then be used with more."
            )
        check_least(self, {"penalty": 0})
        if not self.reward_clip > 0:
            raise InputError(f"--reward-clip {self.reward_clip} came: give a norm above 0.")


@dataclass(frozen=True)
class NetSettings:
    """The net that a fit starts from.

    Args:
        init: an NPNet file, which then says what the net looks like.
        arch: of a new net, one of :data:`npnet_core.architectures.ARCHITECTURES`; None for the published one.
        swin_weights: an ImageNet Swin to start from.
        published_quirks: compute what the published nets compute.
        without: terms of eq. 9 that are left out.
        drop_path: stochastic depth of the Swin.
        base_precision: of an adapter's network; None for fp32 on the CPU and bf16 elsewhere, with the objective reward
            for ``precision``.

    The others are entries of the architecture's config; None is what that says, for ``resolution`` what the data says.

    Raises:
        InputError: for settings that the architecture does not have, or a shape with ``init``.
    """

    init: Path | None = None
    arch: Literal["npnet", "unet", "adapter"] | None = None
    swin_weights: Path | None = None
    published_quirks: bool = False
    without: tuple[Literal["svd", "text", "residual"], ...] = ()
    resolution: int | None = None
    swin_size: int | None = None
    swin_dim: int | None = None
    swin_depths: tuple[int, ...] | None = None
    swin_heads: tuple[int, ...] | None = None
    swin_window: int | None = None
    drop_path: float | None = None
    widths: tuple[int, ...] | None = None
    blocks: int | None = None
    rank: int | None = None
    base_precision: Literal["fp32", "bf16", "fp16"] | None = None

    def __post_init__(self) -> None:
        if self.init is not None:
            if flags := self._given(["arch", *SHAPE, "without", "published_quirks", "swin_weights"]):
                raise InputError(
                    f"{flags} came with --init, whose file says what the net looks like: leave one of them out."
                )
            return
        arch = self.architecture
        if self.rank is not None:
            check_least(self, {"rank": 0})
        if flags := self._given(name for other in SHAPES if other != arch for name in SHAPES[other] + SPECIFIC[other]):
            raise InputError(f"{flags} came, which a net of the architecture {arch} does not have: leave it out.")

    @property
    def architecture(self) -> str:
        """Of a net that is not from ``init``."""
        return self.arch or NPNetConfig.architecture

    @property
    def shape(self) -> dict[str, object]:
        """What is given of a new net's config."""
        return {name: getattr(self, name) for name in SHAPE if getattr(self, name) is not None}

    def _given(self, names: Iterable[str]) -> str:
        """The flags of those that are not as they are by default, separated by commas."""
        return ", ".join(flag(name) for name in names if getattr(self, name) != getattr(NetSettings, name))


@dataclass(frozen=True)
class Training:
    """How weights change.

    Args:
        epochs: times that every sample is seen.
        batch: samples at once, per process.
        accumulate: batches per step of the optimizer.
        lr, weight_decay: of AdamW.
        warmup: steps until the learning rate is reached.
        schedule: of the learning rate; cosine falls to 0.
        clip: largest norm of the gradient; None for not clipped.
        ema: decay of a moving average of the weights, which then is the result; 0 for none.
        precision: of the network; singular values stay in fp32.
        compile: torch.compile the network.
        seed: of new weights, held-out prompts, order and stochastic depth.

    Raises:
        InputError: for numbers that make no run.
    """

    epochs: int = 30
    batch: int = 64
    accumulate: int = 1
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float | None = None
    ema: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, {"epochs": 1, "batch": 1, "accumulate": 1, "lr": 0, "weight_decay": 0, "warmup": 0})
        if self.lr > 1:
            raise InputError(f"--lr {self.lr} came: give at most 1, such as 1e-4.")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema {self.ema} came: give 0 (none) to less than 1, such as 0.999.")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"--clip {self.clip} came: give a norm above 0, or leave it out.")


@dataclass(frozen=True)
class Runtime:
    """What no weight depends on, so that it may change when a run goes on.

    Args:
        device: ``cpu``, ``cuda``, …; None for a GPU if there is one.
        workers: threads that prepare batches; None for 1 on the CPU, up to 16 for a GPU.
        checkpoint_every: minutes between checkpoints; 0: after every step.
        keep: checkpoints that are kept.
        log_every: steps between two rows of the log.
        validate_every: steps between two looks at the held-out prompts; None for every epoch.
        tensorboard: log to OUT/tensorboard too.
        wandb: log to this Weights & Biases project too.
        checkpointing: of an adapter's network, and of what a reward goes through: compute activations twice instead of
            keeping them.

    Raises:
        InputError: for numbers that make no run.
    """

    device: str | None = None
    workers: int | None = None
    checkpoint_every: float = 10.0
    keep: int = 3
    log_every: int = 10
    validate_every: int | None = None
    tensorboard: bool = False
    wandb: str | None = None
    checkpointing: bool = True

    def __post_init__(self) -> None:
        check_least(self, {"keep": 1, "log_every": 1, "checkpoint_every": 0})
        if self.validate_every is not None:
            check_least(self, {"validate_every": 1})
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers {self.workers} came: give at least 1 thread.")


@dataclass(frozen=True)
class Settings:
    """A fit.

    Args:
        out: the run's folder: the net, its log, its checkpoints.
        objective: what is learnt, and from what.

    Raises:
        InputError: for an adapter that is to be compiled.
    """

    out: Path
    objective: NoisePairs | Reward
    net: NetSettings = NetSettings()
    training: Training = Training()
    runtime: Runtime = Runtime()

    def __post_init__(self) -> None:
        if self.training.compile and self.net.init is None and self.net.architecture == AdapterConfig.architecture:
            raise InputError(NOT_COMPILED)

    @property
    def parts(self) -> tuple:
        return self.objective, self.net, self.training, self.runtime

    def flat(self) -> dict[str, object]:
        """Every setting by its name, which is that of an option of ``npnet fit`` and of an entry in OUT/fit.toml."""
        return {"out": self.out} | {name: value for part in self.parts for name, value in vars(part).items()}


# Settings that may change when a run goes on. The dataset, and prompts, are compared by their hash.
MAY_CHANGE = (
    "dataset",
    "out",
    "skip_corrupt",
    "prompts",
    "column",
    "watch",
    "stop",
    *(field.name for field in dataclasses.fields(Runtime)),
)
