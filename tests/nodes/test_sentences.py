"""A message that a node may raise names what is there on the canvas: a node has no ``--flag``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for room in ("nodes", "npnet_core") for path in (ROOT / room).rglob("*.py"))
SAID = ("InputError", "notify", "warning", "info", "_Damage", "_damaged")


def messages(path: Path) -> list[str]:
    """What every call of SAID in a file is given as text, with … for each value in it."""
    found = []
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", getattr(call.func, "attr", "")) in SAID:
            for text in call.args:
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                found.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in parts))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_flags_are_those_of_a_command_that_is_named(path):
    for message in messages(path):
        flags = re.findall(r"--[a-z]\S*", message)
        assert not flags or "`npnet " in message, message


def test_messages_are_found():
    said = [message for path in FILES for message in messages(path)]
    assert len(said) > 100
    assert any(message.startswith("The conditioning is … (… wide)") for message in said)
