"""What is said of where a net comes from."""

from __future__ import annotations

import json

import pytest

from npnet_core.origin import trained_on

REWARD = {"scorers": {"hpsv2.1": 5.0, "imagereward": 1.0}, "denoising_steps": 1}
SELECTION = {"scorers": ["hpsv2"], "margins": [0.0], "kept": 1500, "trained_on": 1200}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (
            {"npnet.base_model": "turbo", "npnet.reward": json.dumps(REWARD)},
            "Trained on the scores of hpsv2.1, imagereward for images of turbo in 1 step.",
        ),
        (
            {"npnet.base_model": "sdxl", "npnet.dataset": "{}", "npnet.selection": json.dumps(SELECTION)},
            "Trained on 1,200 pairs of sdxl that hpsv2 kept.",
        ),
        (
            {"npnet.dataset": "{}", "npnet.selection": json.dumps(SELECTION | {"scorers": ["none"]})},
            "Trained on 1,200 pairs of a base model that is not named.",
        ),
        ({}, ""),
        ({"npnet.reward": "[1]"}, ""),
        ({"npnet.reward": "{"}, ""),
        ({"npnet.dataset": "{}", "npnet.selection": '{"trained_on": "many", "scorers": []}'}, ""),
        (
            {"npnet.base_model": "a\n\x1b[31mb", "npnet.reward": json.dumps(REWARD)},
            "Trained on the scores of hpsv2.1, imagereward for images of a\\n\\x1b[31mb in 1 step.",
        ),
    ],
)
def test_it_is_said_in_a_line(metadata, words):
    assert trained_on(metadata) == words
