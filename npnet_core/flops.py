"""What one pass of a network costs, in operations."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .architectures import new_net
from .config import Config, NPNetConfig
from .layers import SVD


def flops(function: Callable[[], object]) -> int:
    """Floating-point operations of a call: of matrix products, convolutions and attention, a multiplication and an
    addition counted as two. Singular value decompositions are left out, and so is attention on the CPU: torch does not
    count them.

    What it computes with may be on the ``meta`` device: shapes are enough.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def net_flops(config: Config) -> int:
    """Of a net on one noise at the config's own resolution and number of tokens, attention included, from shapes."""
    c = config
    with torch.device("meta"):
        npnet = new_net(c).eval()
        inputs = [torch.empty(1, c.channels, c.resolution, c.resolution), torch.empty(1, c.prompt_tokens, c.prompt_dim)]
        if isinstance(c, NPNetConfig) and c.svd_branch:
            square = torch.empty(1, c.matrix_size, c.matrix_size)
            inputs.append(SVD(square, square[:, 0], square))
        with torch.no_grad():
            return flops(lambda: npnet(*inputs))
