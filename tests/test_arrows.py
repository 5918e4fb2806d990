"""The arrows of the house: nodes → npnet_core ← trainer, read from every import statement."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# room → what it may import besides the standard library, at the top of a file or anywhere in it
CORE = {"npnet_core", "torch", "numpy", "einops", "safetensors"}
TRAINER = CORE | {"trainer", "tqdm", "PIL", "tomli"}
NODES = CORE | {"nodes", "comfy", "comfy_api", "folder_paths", "latent_preview"}
AT_TOP = {"npnet_core": CORE, "trainer": TRAINER, "nodes": NODES}
INSIDE = {
    "npnet_core": CORE | {"transformers", "ftfy", "huggingface_hub"},
    "trainer": TRAINER
    | {"transformers", "diffusers", "accelerate", "pyarrow", "tensorboard", "wandb", "timm", "matplotlib"}
    | {"pytorch_fid", "torchvision"},  # the extra [fid]
    "nodes": NODES,
}


def imports(path: Path) -> list[tuple[int, bool, str]]:
    """(line, at the top of the file?, top-level package) of every import of a file, relative ones resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).parts[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module.split(".")[0]]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            names = [base[0]] if base else [(node.module or node.names[0].name).split(".")[0]]
        else:
            continue
        found += [(node.lineno, node in tree.body, name) for name in names]
    return found


@pytest.mark.parametrize("room", ["npnet_core", "nodes", "trainer"])
def test_no_other_arrow(room):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}{' at the top' if top else ''}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, top, name in imports(path)
        if name not in sys.stdlib_module_names and name not in (AT_TOP if top else INSIDE)[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_pack_imports_its_nodes_only_when_asked():
    assert [(top, name) for _, top, name in imports(ROOT / "__init__.py")] == [(False, "nodes")]


def test_a_forbidden_arrow_is_seen(tmp_path, monkeypatch):
    """The walk itself: relative and absolute imports, at the top and inside."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "npnet_core").mkdir()
    file = tmp_path / "npnet_core" / "x.py"
    file.write_text(
        "import comfy.utils\nfrom ..nodes import golden\n\ndef f():\n    from diffusers import DDIMScheduler\n"
    )
    assert imports(file) == [(1, True, "comfy"), (2, True, "nodes"), (5, False, "diffusers")]
