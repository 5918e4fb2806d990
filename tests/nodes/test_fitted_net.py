"""What ``npnet fit`` writes, loaded by Load NPNet and sampled from."""

from __future__ import annotations

import shutil

import torch

from tests.nodes.test_redenoise_node import graph
from tests.tiny_fit import fit_tiny_npnet


def test_a_fitted_net_makes_a_picture(run_graph, comfy_base, tmp_path):
    shutil.copy(fit_tiny_npnet(tmp_path), comfy_base / "models" / "npnet" / "fitted.safetensors")
    api = graph()
    api["13"] = {"class_type": "NPNetLoad", "inputs": {"npnet_name": "fitted.safetensors"}}
    api["14"] = {
        "class_type": "NPNetNoise",
        "inputs": {
            "npnet": ["13", 0], "noise": ["5", 0], "conditioning": ["2", 0], "strength": 1.0, "long_prompt": "truncate",
        },
    }  # fmt: skip
    pictures = {}
    for name, noise in {"ordinary": ["5", 0], "golden": ["14", 0]}.items():
        api["10"]["inputs"]["noise"] = noise
        (pictures[name],) = run_graph(api).values["11"]
    assert pictures["golden"].isfinite().all()
    assert not torch.equal(pictures["golden"], pictures["ordinary"])
