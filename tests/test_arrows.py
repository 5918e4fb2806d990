"""The arrows of the house, read from every import statement: nodes → npnet_core ← trainer, and in the trainer from
room to room, downwards only."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# room → what it may import besides the standard library, at the top of a file or anywhere in it
CORE = {"npnet_core", "torch", "numpy", "einops", "safetensors"}
TRAINER = CORE | {"trainer", "tqdm", "PIL", "tomli", "jinja2", "markupsafe"}
NODES = CORE | {"nodes", "comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "server", "tqdm"}
AT_TOP = {"npnet_core": CORE, "trainer": TRAINER, "nodes": NODES}
INSIDE = {
    "npnet_core": CORE | {"transformers", "ftfy", "huggingface_hub"},
    "trainer": TRAINER
    | {"transformers", "diffusers", "huggingface_hub", "accelerate", "pyarrow", "tensorboard", "wandb", "timm"}
    | {"scipy", "statsmodels"}
    | {"pytorch_fid", "torchvision"},  # the extra [fid]
    "nodes": NODES | {"transformers"},  # which ComfyUI brings too
}

# rooms of the trainer from the top of the house to the bottom; each uses those after it, and all use FOR_ALL
ROOMS = ("commands", "shapes", "fitting", "report", "evaluation", "collecting", "data", "bases")
FOR_ALL = ("distributed", "signals")
TRAINER_ENTRIES = {*ROOMS, *(f"{name}.py" for name in FOR_ALL), "__init__.py", "__main__.py"}


def imports(path: Path) -> list[tuple[int, bool, str]]:
    """(line, at the top of the file?, top-level package) of every import of a file, relative ones resolved. What runs
    when the file is imported is at its top, in a ``try`` or a class too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {each for node in ast.walk(tree) if runs_later(node) for each in ast.walk(node)}
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
        found += [(node.lineno, node not in later, name) for name in names]
    return found


def runs_later(node: ast.AST) -> bool:
    """Whether what is in it does not run when the file is imported."""
    types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


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
        "import comfy.utils\nfrom ..nodes import golden\n\ndef f():\n    from diffusers import DDIMScheduler\n\n"
        "try:\n    import timm\nexcept ImportError:\n    pass\nif TYPE_CHECKING:\n    import scipy\n"
    )
    found = {(1, True, "comfy"), (2, True, "nodes"), (5, False, "diffusers"), (8, True, "timm"), (12, False, "scipy")}
    assert set(imports(file)) == found


def test_no_import_hides_from_the_walk():
    """By a name that is put together. The command line does, so that only the command that is called is imported, and
    the public names do."""
    files = [path for room in AT_TOP for path in (ROOT / room).rglob("*.py")]
    hidden = [path for path in files if re.search(r"\b(import_module|__import__)\b", path.read_text(encoding="utf-8"))]
    names = {path.relative_to(ROOT).as_posix() for path in hidden}
    assert names == {"npnet_core/__init__.py", "trainer/commands/cli.py"}


def test_only_base_models_talk_to_diffusers():
    """And the tiny one's parts, where they are made."""
    files = [path for path in (ROOT / "trainer").rglob("*.py") if "diffusers" in {name for *_, name in imports(path)}]
    names = {path.relative_to(ROOT / "trainer").as_posix() for path in files}
    assert {name for name in names if not name.startswith("bases/")} == {"shapes/components.py"}


# -- the rooms of the trainer -----------------------------------------------------------------------------------------


def modules(folder: Path) -> dict[str, Path]:
    """Name → file of every module below a folder, in the package that is named like it."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def module_arrows(files: dict[str, Path]) -> set[tuple[str, str]]:
    """(from, to) for every import of one of these modules by another, wherever in the file it stands.

    A module that imports a name from a package's ``__init__`` has an arrow to the package; a module in it is one more.
    """
    arrows = set()
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*up, *filter(None, [node.module])])
                wanted = [f"{source}.{alias.name}" for alias in node.names]
                wanted = [module if module in files else source for module in wanted]
            else:
                continue
            arrows |= {(name, module) for module in wanted if module in files and module != name}
    return arrows


def room_of(module: str) -> str:
    """``trainer.data.prompts`` → ``data``; the trainer itself and ``__main__`` stand above all rooms."""
    parts = module.split(".")
    return "commands" if len(parts) == 1 or parts[1] == "__main__" else parts[1]


def upward(arrows: set[tuple[str, str]]) -> list[str]:
    """Those that do not point down the list of rooms."""
    order = {room: i for i, room in enumerate((*ROOMS, *FOR_ALL))}
    return [f"{a} imports {b}" for a, b in sorted(arrows) if order[room_of(a)] > order[room_of(b)]]


def circles(arrows: set[tuple[str, str]]) -> list[str]:
    """Modules that import each other, directly or not."""
    sorter = graphlib.TopologicalSorter()
    for a, b in arrows:
        sorter.add(a, b)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_the_rooms_of_the_trainer_use_only_those_below():
    arrows = module_arrows(modules(ROOT / "trainer"))
    assert len(arrows) > 100
    assert not upward(arrows), "\n".join(upward(arrows))


@pytest.mark.parametrize("package", ["trainer", "npnet_core", "nodes"])
def test_no_circle(package):
    assert not circles(module_arrows(modules(ROOT / package)))


def test_the_trainer_has_its_rooms_and_nothing_else():
    entries = {path.name for path in (ROOT / "trainer").iterdir() if path.name != "__pycache__"}
    assert entries == TRAINER_ENTRIES
    assert len(entries) <= 12


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_lives_there(room):
    text = ast.get_docstring(ast.parse((ROOT / "trainer" / room / "__init__.py").read_text(encoding="utf-8")))
    assert text.split("\n")[0].endswith(".")


def test_an_arrow_that_points_up_is_seen(tmp_path):
    """Also one that is only for types, relative, or inside a function; and a circle within a room."""
    house = {
        "data/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trainer.fitting.x import X\n",
        "fitting/x.py": "from trainer.data import a\nfrom trainer import signals\nfrom . import y\n",
        "fitting/y.py": "def f():\n    from .x import X\n    import trainer.commands.fit\n",
        "commands/fit.py": "from trainer.fitting.x import X\n",
        "signals.py": "",
    }
    for name, text in house.items():
        (tmp_path / "trainer" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "trainer" / name).write_text(text)
    arrows = module_arrows(modules(tmp_path / "trainer"))
    assert upward(arrows) == [
        "trainer.data.a imports trainer.fitting.x",
        "trainer.fitting.y imports trainer.commands.fit",
    ]
    assert circles({(a, b) for a, b in arrows if "fitting" in a and "fitting" in b})
    assert not circles({(a, b) for a, b in arrows if a not in ("trainer.data.a", "trainer.fitting.y")})
