"""A warning that one of our own modules causes fails the run that it comes up in."""

from __future__ import annotations

import warnings

import pytest

OURS = (
    "npnet_core.golden",
    "trainer.fitting.training",
    "/home/me/ComfyUI/custom_nodes/npnet-golden-noise.nodes.golden",  # as ComfyUI names a pack's modules
    "workflows.build",
    "benchmarks.fit",
    "tests.core.test_golden",
)


def warn_from(module: str, category: type[Warning]) -> None:
    """As if a line of that module had warned."""
    warnings.warn_explicit("seen", category, f"{module}.py", 1, module=module)


@pytest.mark.parametrize("category", [UserWarning, DeprecationWarning, FutureWarning, ResourceWarning])
@pytest.mark.parametrize("module", OURS)
def test_a_warning_of_ours_is_an_error(module, category):
    with pytest.raises(category, match="seen"):
        warn_from(module, category)


@pytest.mark.parametrize("module", ["nodes", "comfy.ops", "diffusers.schedulers", "transformers.trainer"])
def test_another_s_is_only_printed(module):
    with warnings.catch_warnings(record=True) as caught:
        warn_from(module, UserWarning)
    assert [str(each.message) for each in caught] == ["seen"]
