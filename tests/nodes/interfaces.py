"""Where ComfyUI's versions differ in what the tests reach into, told by what is there and not by version numbers."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import comfy.cli_args
import comfyui_workflow_templates
import execution
import server
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP


def start_prompt_server() -> None:
    """ComfyUI's server of this process, which answers nobody; nodes register their routes with it."""
    assets = {}
    if "asset_manager" in inspect.signature(server.PromptServer).parameters:
        from app.assets.manager import NoAssets

        assets["asset_manager"] = NoAssets(comfy.cli_args.args)
    server.PromptServer(asyncio.new_event_loop(), **assets)


def new_executor() -> execution.PromptExecutor:
    """An executor that keeps what the last graph gave, and no more."""
    known = inspect.signature(execution.PromptExecutor).parameters
    limits = {"lru": 0, "ram": 0, "ram_inactive": 0}  # main.py gives all of them, whatever the cache
    sizes = {"cache_args": limits} if "cache_args" in known else {"cache_size": 0}
    return execution.PromptExecutor(server.PromptServer.instance, cache_type=execution.CacheType.CLASSIC, **sizes)


def cached_outputs(executor: execution.PromptExecutor, node_id: str) -> list[list] | None:
    """A list for each output of a node; None where the node was not run."""
    cache = executor.caches.outputs
    entry = getattr(cache, "get_local", cache.get)(node_id)  # `get` alone became a coroutine
    return getattr(entry, "outputs", entry)  # an entry of its own, around the lists


def listed_modules(patcher: ModelPatcher) -> list[torch.nn.Module]:
    """The modules that ComfyUI moves one by one under partial load."""
    return [entry[-2] for entry in patcher._load_list()]  # (…, bytes, name, module, parameters)


def state_dict_for_saving(model: BaseModel, clip: CLIP, vae: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What CheckpointSave writes."""
    parts = {"clip_state_dict": clip.get_sd(), "vae_state_dict": vae.state_dict()}
    if "unet_state_dict" in inspect.signature(model.state_dict_for_saving).parameters:
        parts["unet_state_dict"] = model.diffusion_model.state_dict()
    return model.state_dict_for_saving(**parts)


def template_file(name: str) -> Path:
    """A workflow that comes with ComfyUI."""
    if hasattr(comfyui_workflow_templates, "get_asset_path"):  # it lies in one of several packages
        return Path(comfyui_workflow_templates.get_asset_path(name, f"{name}.json"))
    return Path(comfyui_workflow_templates.__file__).parent / "templates" / f"{name}.json"
