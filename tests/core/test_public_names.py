"""What `npnet_core` itself offers: the names of the README, each the one object it is, imported when first used."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pickle
import pkgutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import npnet_core

ROOT = Path(__file__).resolve().parents[2]
NAMES = "load_npnet save_npnet golden_noise load_scorer redenoise keep_pair NPDReader NPDWriter NPNetConfig UNetConfig"
NAMES = [*NAMES.split(), "InputError"]


def fresh(code: str) -> str:
    """What a new Python prints."""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_costs_nothing():
    """No library and no module of its own comes with it; a name brings what it needs."""
    libraries = "[name for name in ('torch', 'numpy', 'safetensors', 'einops', 'transformers') if name in sys.modules]"
    code = "import sys\nimport npnet_core\ndir(npnet_core)\n"
    code += f"print({libraries}, [name for name in sys.modules if name.startswith('npnet_core.')])\n"
    code += "from npnet_core import golden_noise\nprint('torch' in sys.modules)"
    assert fresh(code).splitlines() == ["[] []", "True"]


def test_every_name_is_there():
    assert sorted(npnet_core.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(npnet_core))
    for name in NAMES:
        assert getattr(npnet_core, name).__name__ == name


def test_no_module_of_the_package_hides_a_name():
    """Importing a submodule puts it into the package under its own name."""
    for module in pkgutil.walk_packages(npnet_core.__path__, "npnet_core."):
        importlib.import_module(module.name)
    assert not [name for name in NAMES if isinstance(getattr(npnet_core, name), type(sys))]


def test_type_checkers_see_the_same():
    tree = ast.parse((ROOT / "npnet_core" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body for alias in node.names}
    assert told == npnet_core._MODULES
    assert sorted(told) == sorted(NAMES)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'silver_noise'"):
        npnet_core.silver_noise  # noqa: B018


def test_within_a_pack_they_are_the_pack_s_own():
    """As ComfyUI loads it: from the folder, under a name of its choice."""
    code = (
        "import importlib.util, sys\n"
        "sys.path = [path for path in sys.path if path]\n"
        f"spec = importlib.util.spec_from_file_location('a-pack', {str(ROOT / '__init__.py')!r}, "
        f"submodule_search_locations=[{str(ROOT)!r}])\n"
        "sys.modules['a-pack'] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "core = importlib.import_module('a-pack.npnet_core')\n"
        "print(core.golden_noise.__module__, core.redenoise.__module__, core.NPDReader.__module__)\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'npnet_core'])"
    )
    lines = fresh(code).splitlines()
    assert lines == ["a-pack.npnet_core.golden a-pack.npnet_core.redenoising a-pack.npnet_core.npd", "[]"]


def test_an_error_crosses_processes_under_its_public_name():
    """ComfyUI shows the module's name before the sentence; workers pickle their errors."""
    error = pickle.loads(pickle.dumps(npnet_core.InputError("The noise is NaN: check the node that makes it.")))
    assert type(error) is npnet_core.InputError
    assert traceback.format_exception_only(error) == [f"npnet_core.InputError: {error}\n"]
