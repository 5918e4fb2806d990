"""The modules of a package by name, imported when they are named."""

from __future__ import annotations

import importlib
import importlib.util


class Modules:
    """`pack.npnet_core.golden` imports that module; other names are the package's own."""

    def __init__(self, name: str):
        self._package = importlib.import_module(name)

    def __getattr__(self, name: str):
        full_name = f"{self._package.__name__}.{name}"
        spec = importlib.util.find_spec(full_name)
        if spec is None:
            return getattr(self._package, name)
        return Modules(full_name) if spec.submodule_search_locations else importlib.import_module(full_name)
