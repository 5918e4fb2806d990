"""What the commands say when a base model's device is full, or its preset is another kind's."""

from __future__ import annotations

import pytest
import torch

from npnet_core.errors import InputError
from tests import tiny_pipelines
from trainer.bases import PRESETS, load_base
from trainer.commands.base_model import check_preset, memory_for
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


def test_a_preset_of_models_whose_guidance_enters_otherwise(tmp_path):
    dev, schnell = (tiny_pipelines.tiny_flux(tmp_path / str(told), guidance=told) for told in (True, False))
    for folder, preset, words in (
        (dev, "flux1-schnell", r"have guidance built in and .* is told it: name the preset of this kind"),
        (schnell, "flux1-dev", r"are told guidance and .* is not: name the preset of this kind"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            check_preset(load_base(folder, distilled=PRESETS[preset].guidance == "none"), preset)
        assert "\n" not in str(caught.value)
    check_preset(load_base(dev), "flux1-krea-dev")
    check_preset(load_base(schnell, distilled=True), "flux1-schnell")
    check_preset(load_base(schnell, distilled=False), "sd3.5")  # one that was trained on without its guidance
