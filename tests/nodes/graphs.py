"""Graphs and single nodes run in this process, through ComfyUI's own loading, validation and executor."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import execution
import torch
from comfy_execution.utils import get_executing_context

import nodes
from tests.nodes.errors import NodeFailed, PromptRefused
from tests.nodes.interfaces import cached_outputs, new_executor, start_prompt_server
from tests.nodes.modules import Modules


@dataclass(frozen=True)
class Result:
    """What each node gave, by node id."""

    values: dict[str, tuple]  # MODEL, LATENT, IMAGE [B, H, W, 3], …; a list where the node gives a list
    ui: dict[str, dict]  # what an output node shows: {"images": [{"filename": …}]}


def run_graph(
    prompt: dict,
    *,
    executor: execution.PromptExecutor | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Run a graph in API format to its output nodes.

    Every call computes all of its nodes anew; with the fixture `executor`, unchanged nodes are taken from
    ComfyUI's cache, as when a user presses Run again. `on_progress(node_id, value, total)` sees each step of
    a progress bar, and may call `nodes.interrupt_processing()`.

    Raises PromptRefused, NodeFailed, or comfy.model_management.InterruptProcessingException.
    """
    prompt = copy.deepcopy(prompt)  # validation converts values in place
    valid, error, output_nodes, node_errors = asyncio.run(execution.validate_prompt("test", prompt, None))
    if not valid or node_errors:
        raise PromptRefused(error, node_errors)

    def progress_hook(value, total, preview, prompt_id=None, node_id=None):  # as main.hijack_progress
        comfy.model_management.throw_exception_if_processing_interrupted()
        if on_progress is not None:
            on_progress(node_id or get_executing_context().node_id, value, total)

    executor = executor or new_executor()
    comfy.utils.set_progress_bar_global_hook(progress_hook)
    try:
        executor.execute(prompt, "test", {}, output_nodes)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    for event, data in executor.status_messages:
        if event == "execution_interrupted":
            raise comfy.model_management.InterruptProcessingException()
        if event == "execution_error":
            raise NodeFailed(data)
    assert executor.success
    values = {node_id: _values(executor, node_id, node["class_type"]) for node_id, node in prompt.items()}
    return Result(values, executor.history_result["outputs"])


def _values(executor: execution.PromptExecutor, node_id: str, class_type: str) -> tuple:
    outputs = cached_outputs(executor, node_id)
    if outputs is None:  # not upstream of any output node
        return ()
    is_list = getattr(nodes.NODE_CLASS_MAPPINGS[class_type], "OUTPUT_IS_LIST", None) or [False] * len(outputs)
    return tuple(v[0] if len(v) == 1 and not many else v for v, many in zip(outputs, is_list, strict=True))


def call(node_id: str, **inputs) -> tuple:
    """The outputs of one node for Python values, without a graph; its exceptions arrive as raised."""
    node = nodes.NODE_CLASS_MAPPINGS[node_id]
    with torch.inference_mode():  # as the executor does
        run = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
        output = run(**inputs)
    assert not inspect.isawaitable(output)
    return tuple(output.args) if hasattr(output, "args") else tuple(output)


def boot(packs: list[Path]) -> dict[str, Modules]:
    """Load ComfyUI's built-in nodes, then `packs` as its custom_nodes; the packs by folder name."""
    start_prompt_server()
    asyncio.run(_load(packs))
    return {pack.name: Modules(str(pack).replace(".", "_x_")) for pack in packs}


async def _load(packs: list[Path]) -> None:
    await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
    for pack in packs:
        if not await nodes.load_custom_node(str(pack), module_parent="custom_nodes"):
            raise ImportError(f"ComfyUI could not load {pack.name}: its warning is in the captured log")
