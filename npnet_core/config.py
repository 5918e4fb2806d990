"""What nets look like: a config per architecture, the published nets among them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from .errors import InputError

HEADS = 8  # of the attention over singular vectors
HEAD_WIDTH = 32  # of the U-Net's attention over the prompt
LARGEST = 2**15  # of any size; Krea-2's prompts are 30,720 wide
BLOCKS = 1000  # of a net

C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Config:
    """What the config of every architecture says: the noise and the prompts that the net was trained on.

    Args:
        family: base model family of the latents and prompt embeddings (``sdxl``, ``hunyuan-dit``, ``sd1``, ``sd2``,
            or a name of your own).
        channels: latent channels C.
        resolution: side R of the square latent, in latent pixels (1024 px / 8 = 128).
        prompt_tokens, prompt_dim: the prompt embedding is [B, prompt_tokens, prompt_dim].

    Attributes:
        architecture: its name in files and for ``npnet fit --arch``.
        any_size: whether the net takes noise of any height and width, and prompts of any number of tokens;
            ``resolution`` and ``prompt_tokens`` then only say what it was trained on.
    """

    architecture: ClassVar[str]
    any_size: ClassVar[bool]

    family: str = "sdxl"
    channels: int = 4
    resolution: int = 128
    prompt_tokens: int = 77
    prompt_dim: int = 2048

    def check_counts(self, *names: str) -> None:
        """Raise InputError unless these fields, and all of this class, are whole numbers, 1 to :data:`LARGEST`."""
        for name in ("channels", "resolution", "prompt_tokens", "prompt_dim", *names):
            value = getattr(self, name)
            for count in value if isinstance(value, tuple) else (value,):
                if not (isinstance(count, int) and 1 <= count <= LARGEST):
                    raise InputError(f"{name}={value!r} makes no network: give whole numbers of 1 to {LARGEST}.")

    def to_dict(self) -> dict:
        """The config as plain JSON types. What is None is left out, so that versions that do not know it yet read the
        file."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls: type[C], values: dict) -> C:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: for names that this version does not know.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"The NPNet config has unknown entries {', '.join(unknown)}: the file was made by a newer "
                "version, so update this package."
            )
        return cls(**values)


@dataclass(frozen=True)
class NPNetConfig(Config):
    """The shape of one NPNet of the published architecture. The defaults are the published SDXL net.

    Args:
        family, channels, resolution, prompt_tokens, prompt_dim: as in :class:`Config`; ``channels`` is a square number
            (they are tiled into one square matrix).
        swin_size: side of the picture that the Swin branch sees, in pixels.
        swin_dim, swin_depths, swin_heads, swin_window: Swin-T's 96, (2, 2, 6, 2), (3, 6, 12, 24), 7.
        drop_path: stochastic depth of the deepest Swin block while training; no effect in eval mode.
        svd_branch, text_term, residual_branch: the three terms of eq. 9; False leaves one out
            (the ablations of tables 4 and 14).
        misread_swin: quirk of the published weights, see :class:`npnet_core.model.ResidualBranch`.
        fixed_signs: give singular vectors a sign of our own; the published weights were trained on
            whatever sign LAPACK returned.

    Raises:
        InputError: for values that make no network.
    """

    architecture: ClassVar[str] = "npnet"
    any_size: ClassVar[bool] = False

    swin_size: int = 224
    swin_dim: int = 96
    swin_depths: tuple[int, ...] = (2, 2, 6, 2)
    swin_heads: tuple[int, ...] = (3, 6, 12, 24)
    swin_window: int = 7
    drop_path: float = 0.1
    svd_branch: bool = True
    text_term: bool = True
    residual_branch: bool = True
    misread_swin: bool = True
    fixed_signs: bool = False

    def __post_init__(self) -> None:
        for name in ("swin_depths", "swin_heads"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self.check_counts("swin_size", "swin_dim", "swin_window", "swin_depths", "swin_heads")
        if sum(self.swin_depths) > BLOCKS:  # a file may say anything, and building them takes time
            raise InputError(f"swin_depths has {sum(self.swin_depths)} blocks in all: give at most {BLOCKS}.")
        if math.isqrt(self.channels) ** 2 != self.channels:
            raise InputError(
                f"channels={self.channels} cannot be tiled into one square matrix: give a square number (4, 16), or "
                "use the architecture unet, which takes any."
            )
        if self.svd_branch and self.matrix_size % HEADS:
            raise InputError(
                f"resolution={self.resolution} gives {self.matrix_size} singular values for {HEADS} attention heads: "
                "choose one that divides without remainder."
            )
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path={self.drop_path} is no probability below 1: give 0 to switch it off.")
        if not (self.svd_branch or self.text_term or self.residual_branch):
            raise InputError("svd_branch, text_term and residual_branch are all left out: keep at least one.")
        if len(self.swin_depths) != len(self.swin_heads) or not self.swin_depths:
            raise InputError(
                f"swin_depths={self.swin_depths} and swin_heads={self.swin_heads} differ in length: "
                "give one value of each per stage."
            )
        for stage, heads in enumerate(self.swin_heads):
            side, dim = self.swin_size / (4 * 2**stage), self.swin_dim * 2**stage
            if side % 1 or side % min(self.swin_window, side) or dim % heads:
                raise InputError(
                    f"swin_size={self.swin_size} and swin_dim={self.swin_dim} give stage {stage} a {side:g}x{side:g} "
                    f"map of width {dim} for windows of {self.swin_window} and {heads} heads: choose sizes that divide "
                    "without remainder."
                )

    @property
    def tile(self) -> int:
        """Tiles per side when C channels become one matrix (2 for 4 channels)."""
        return math.isqrt(self.channels)

    @property
    def matrix_size(self) -> int:
        """Side of the matrix whose singular values are predicted (256 for the published nets)."""
        return self.tile * self.resolution

    @property
    def swin_grid(self) -> int:
        """Side of the Swin branch's last feature map (7 for the published nets)."""
        return self.swin_size // (4 * 2 ** (len(self.swin_depths) - 1))

    @property
    def swin_features(self) -> int:
        """Width of the Swin branch's last feature map (768 for the published nets)."""
        return self.swin_dim * 2 ** (len(self.swin_depths) - 1)


@dataclass(frozen=True)
class UNetConfig(Config):
    """The shape of one U-Net with cross-attention, see :mod:`npnet_core.unet`. The defaults are for SDXL.

    Args:
        family, channels, resolution, prompt_tokens, prompt_dim: as in :class:`Config`.
        widths: features per pixel at each level, multiples of 32; each level has half the side of the one before.
        blocks: per level, as many on the way down as on the way up.
        prompt_width: features per token of the prompt, as all blocks read them; None is the width of the lowest level.
            What a new net needs where prompts are wide: :func:`narrow_prompt`.

    Raises:
        InputError: for values that make no network.
    """

    architecture: ClassVar[str] = "unet"
    any_size: ClassVar[bool] = True

    widths: tuple[int, ...] = (64, 128, 256, 256)
    blocks: int = 1
    prompt_width: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON has lists only
        self.check_counts("widths", "blocks", *(["prompt_width"] if self.prompt_width is not None else []))
        if self.blocks * len(self.widths) > BLOCKS:  # a file may say anything, and building them takes time
            raise InputError(f"blocks={self.blocks} makes more than {BLOCKS} blocks in all: give fewer.")
        if not self.widths or any(width % HEAD_WIDTH for width in self.widths):
            raise InputError(
                f"widths={self.widths} cannot be split into heads of {HEAD_WIDTH}: give one multiple of it per level."
            )


def narrow_prompt(prompt_dim: int) -> int | None:
    """``prompt_width`` of a new U-Net for prompts so wide.

    Up to 4,096 none: the width of the lowest level. Beyond, the first projection would cost more than the rest of the
    net (512 tokens, 30,720 wide, to 256: 8 GFLOP), so it gets at most 2^20 weights, in whole heads.
    """
    return None if prompt_dim <= 4096 else max(HEAD_WIDTH, 2**20 // prompt_dim // HEAD_WIDTH * HEAD_WIDTH)


# The trained nets of the paper's authors. DreamShaper-xl-v2-turbo's has the shape and the family of SDXL's.
PUBLISHED = {
    "sdxl": NPNetConfig(),
    "hunyuan-dit": NPNetConfig(family="hunyuan-dit", prompt_dim=1024),
}

# For nets of our own: Swin's channels are read as channels, singular vectors have one sign everywhere.
MENDED = {"misread_swin": False, "fixed_signs": True}
