"""NPNet: noise + prompt → golden noise, in one pass (Stage II of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import NPNetConfig
from .errors import InputError
from .layers import SVD, SingularValueBranch, TextTerm, zero_init
from .swin import Swin


class Terms(NamedTuple):
    """The three terms of eq. 9, each [B, C, R, R]; None for a branch that the config leaves out."""

    svd: Tensor | None
    text: Tensor | None
    residual: Tensor | None


class ResidualBranch(nn.Module):
    """x̂ = φ'(ψ(φ(x + e))): resize and 1x1 convolution to a picture, Swin, 1x1 convolution and resize back."""

    def __init__(self, config: NPNetConfig, operations=nn):
        super().__init__()
        self.size, self.resolution, self.misread = config.swin_size, config.resolution, config.misread_swin
        self.down = operations.Linear(config.channels, 3)  # 1x1 convolutions; why matrices, see PatchEmbed
        self.swin = Swin(
            config.swin_size,
            config.swin_dim,
            config.swin_depths,
            config.swin_heads,
            config.swin_window,
            config.drop_path,
            operations,
        )
        features = config.swin_grid if config.misread_swin else config.swin_features
        self.up = operations.Linear(features, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, R, R] → [B, C, R, R]. Resizes are nearest, so they commute with the 1x1 convolutions."""
        picture = self.down(x.movedim(1, -1)).movedim(-1, 1)
        features = self.swin(F.interpolate(picture, size=(self.size, self.size)))  # [B, 7, 7, 768]
        if self.misread:
            # Quirk of the published weights: this channels-last map is taken for 7 channels of 7x768 pixels, and
            # resizing its 768 columns to 128 keeps every sixth feature only.
            features = features.movedim(1, -1)  # [B, 7, 768, 7]
        residual = self.up(features).movedim(-1, 1)
        return F.interpolate(residual, size=(self.resolution, self.resolution))


class NPNet(nn.Module):
    """The network of "Golden Noise for Diffusion Models". Deterministic in eval mode; the input is never changed.

    A new net starts at the identity: the singular-value branch returns its input, alpha and beta are 0. Without that
    branch it starts at zero.
    Weights are drawn from torch's global generator, so seed it before.
    """

    def __init__(self, config: NPNetConfig, operations=nn):
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}  # of the file it was loaded from
        self.svd_branch = self.text_term = self.residual_branch = None
        if config.svd_branch:
            self.svd_branch = SingularValueBranch(config.matrix_size, config.tile, config.fixed_signs, operations)
            zero_init(self.svd_branch.head[-1])  # Σ̃ = Σ
        if config.text_term:
            self.text_term = TextTerm(config.channels, config.prompt_tokens, config.prompt_dim, operations)
            self.alpha = nn.Parameter(torch.zeros(1))
        if config.residual_branch:
            self.residual_branch = ResidualBranch(config, operations)
            self.beta = nn.Parameter(torch.zeros(1))

    def terms(self, noise: Tensor, prompt: Tensor, svd: SVD | None = None) -> Terms:
        """x̃', e and x̂ before they are weighted; arguments as in :meth:`forward`."""
        text = self.text_term(noise, prompt) if self.text_term is not None else None
        residual = None
        if self.residual_branch is not None:
            residual = self.residual_branch(noise if text is None else noise + text)
        return Terms(self.svd_branch(noise, svd) if self.svd_branch is not None else None, text, residual)

    def text_weight(self) -> Tensor:
        """α of eq. 9. The files hold a number before this squashing into −1 … 1."""
        return 2 * torch.sigmoid(self.alpha) - 1

    def forward(self, noise: Tensor, prompt: Tensor, svd: SVD | None = None) -> Tensor:
        """x'_pred = x̃' + α e + β x̂ (eq. 9).

        Args:
            noise: [B, C, R, R], unit variance, fp32; C and R are the config's.
            prompt: [B, T, D], T and D are the config's.
            svd: ``decompose(noise, …)`` where it was computed before.

        Returns:
            Golden noise [B, C, R, R].

        Raises:
            InputError: if a shape is not the config's.
        """
        c = self.config
        if noise.shape[1:] != (c.channels, c.resolution, c.resolution):
            raise InputError(
                f"Noise of shape {list(noise.shape)} came to a net for [B, {c.channels}, {c.resolution}, "
                f"{c.resolution}]: use golden_noise(), which takes any size."
            )
        if prompt.shape != (len(noise), c.prompt_tokens, c.prompt_dim):
            raise InputError(
                f"A prompt embedding of shape {list(prompt.shape)} came to a net for [{len(noise)}, "
                f"{c.prompt_tokens}, {c.prompt_dim}]: give one embedding per noise, of the net's base model."
            )
        terms = self.terms(noise, prompt, svd)
        golden = torch.zeros_like(noise) if terms.svd is None else terms.svd
        if terms.text is not None:
            golden = golden + self.text_weight().to(noise) * terms.text
        if terms.residual is not None:
            golden = golden + self.beta.to(noise) * terms.residual
        return golden
