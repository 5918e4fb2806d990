"""What this ComfyUI knows, and an older one did not yet."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from comfy_api.latest import io


def known(called: Callable, **arguments) -> dict:
    """Those of the arguments that a class or function of ComfyUI's takes; an older one does without the others."""
    return {name: value for name, value in arguments.items() if name in inspect.signature(called).parameters}


def search_aliases(words: str) -> dict:
    """What finds a node beside its name, comma-separated. In another language its English name is one of them."""
    return known(io.Schema, search_aliases=words.split(", "))
