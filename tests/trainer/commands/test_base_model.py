"""What the commands say when a base model's device is full."""

from __future__ import annotations

import pytest
import torch

from npnet_core.errors import InputError
from trainer.bases import load_base
from trainer.commands.base_model import memory_for
from trainer.shapes import BASE


def test_a_full_device_is_said_with_the_flag_that_helps():
    base = load_base(BASE)
    with (
        pytest.raises(InputError, match=r"The memory of cpu does not hold 4 pairs at once: use a smaller --batch\."),
        memory_for(base, "4 pairs"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(ValueError, match="something else"), memory_for(base, "4 pairs"):
        raise ValueError("something else")
