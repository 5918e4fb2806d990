"""The translations: served by ComfyUI, and for every node, input and output of ours, no more and no less."""

from __future__ import annotations

import json
import re

import pytest

from tests.comfyui import ROOT

LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())

each_language = pytest.mark.parametrize("language", LANGUAGES)


def read(language: str, name: str) -> dict:
    return json.loads((ROOT / "locales" / language / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ours(server) -> dict[str, dict]:
    """What `/object_info` says of our nodes."""
    return {name: info for name, info in server.get("/object_info").items() if name.startswith("NPNet")}


@each_language
def test_is_served(language, server):
    assert server.get("/i18n")[language] == {**read(language, "main.json"), "nodeDefs": read(language, "nodeDefs.json")}


@each_language
def test_every_node_input_and_output_has_an_entry_and_none_is_stale(language, ours):
    """As the frontend asks: nodeDefs.<node>.inputs.<name>.tooltip, nodeDefs.<node>.outputs.<place>.name, …"""
    found = {}
    for name, node in read(language, "nodeDefs.json").items():
        found[name] = {part: list(node.get(part, {})) for part in ("inputs", "outputs")}
        entries = [node["display_name"], node["description"]]
        for entry in [*node["inputs"].values(), *node["outputs"].values()]:
            assert entry.keys() == {"name", "tooltip"}, name
            entries += entry.values()
        assert all(entries), name
    expected = {}
    for name, info in ours.items():
        inputs = [each for section in ("required", "optional") for each in info["input_order"].get(section, [])]
        expected[name] = {"inputs": inputs, "outputs": [str(place) for place in range(len(info["output"]))]}
    assert found == expected


@each_language
def test_own_types_have_names(language, ours):
    known = set()
    for info in ours.values():
        inputs = [kind for section in info["input"].values() for kind, *_ in section.values()]
        known |= {kind for kind in [*inputs, *info["output"]] if isinstance(kind, str)}
    assert set(read(language, "main.json")["dataTypes"]) == {
        kind for kind in known if re.match("NPNET|NOISE_PAIR", kind)
    }


@each_language
def test_options_and_figures_are_those_of_the_tooltip(language, ours):
    """Names of options, numbers, files and folders in a tooltip stand in its translation too."""
    words = re.compile(r"\d[\d.]*\d|\d|models/\w+|output/\w+|\w\S+\.pt\b")
    for name, node in read(language, "nodeDefs.json").items():
        for section in ("required", "optional"):
            for input_name, (_, settings) in ours[name]["input"].get(section, {}).items():
                tooltip, translated = settings["tooltip"], node["inputs"][input_name]["tooltip"]
                options = [f"{option}:" for option in settings.get("options", []) if f"{option}:" in tooltip]
                said = [*words.findall(tooltip), *options]
                missing = [word for word in said if word not in translated.replace("：", ":")]
                assert not missing, f"{name} {input_name}: {missing}"
