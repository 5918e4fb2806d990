"""What `npnet demo --comfyui` leaves in a ComfyUI folder, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from npnet_core.errors import InputError
from npnet_core.preference import load_scorer
from tests.tiny_fit import fit_tiny_npnet
from trainer import bases
from trainer.commands import demo
from trainer.shapes.in_comfyui import NAME, WORKFLOW, install
from trainer.shapes.worlds import stable_diffusion

WRITTEN = Path(__file__).parents[2] / "data" / "written_by_0.1.0"


@pytest.fixture
def comfyui(tmp_path):
    for name in ("models", "custom_nodes"):
        (tmp_path / "ComfyUI" / name).mkdir(parents=True)
    return tmp_path / "ComfyUI"


def test_a_demo_that_has_run_gives_its_net(comfyui, tmp_path, capsys):
    net = tmp_path / "out" / "fit-adapter" / "npnet.safetensors"
    net.parent.mkdir(parents=True)
    fit_tiny_npnet(tmp_path / "tiny").rename(net)
    demo.run(demo.Options(out=tmp_path / "out", comfyui=comfyui))
    models = comfyui / "models"
    said = capsys.readouterr().out.split()
    pipeline, npnet, detector, workflow = (comfyui.joinpath(path) for path in said)
    assert npnet.read_bytes() == net.read_bytes()
    assert bases.load_base(pipeline).family == "sd"
    assert load_scorer("shapes-b", detector).kind == "shapes-b"
    named = {value for node in json.loads(workflow.read_text())["nodes"] for value in node.get("widgets_values", [])}
    assert {NAME, npnet.name, detector.name} <= named
    assert [path.parent for path in (pipeline, npnet, detector)] == [
        models / name for name in ("diffusers", "npnet", "preference")
    ]
    assert workflow == comfyui / "user" / "default" / "workflows" / WORKFLOW.name


def test_a_workflow_that_was_changed_stays(comfyui, tmp_path, caplog):
    net = fit_tiny_npnet(tmp_path)
    *_, workflow = install(stable_diffusion(), net, comfyui)
    workflow.write_text("{}")
    install(stable_diffusion(), net, comfyui)
    assert workflow.read_text() == "{}"
    assert "is left as it is" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "flow"}, "--comfyui came with --base flow, but its loader reads an sd: use --base sd"),
        ({"tables": True}, "--comfyui writes no report: run the demo with --full or --tables first"),
        ({"comfyui": "out"}, "out is no ComfyUI folder, which has the folders models and custom_nodes"),
    ],
)
def test_refused_before_anything_is_written(comfyui, tmp_path, changes, message):
    options = {"out": tmp_path / "out", "comfyui": comfyui, **changes}
    options["comfyui"] = tmp_path / options["comfyui"]
    with pytest.raises(InputError, match=message):
        demo.run(demo.Options(**options))
    assert not (tmp_path / "out").exists()
    assert not any((comfyui / "models").iterdir())


def test_the_net_of_another_world_is_not_put_beside_this_base(comfyui, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(WRITTEN / "pairs", out / "pairs")  # of another base model
    (out / "fit-adapter").mkdir()
    fit_tiny_npnet(tmp_path / "tiny").rename(out / "fit-adapter" / "npnet.safetensors")
    with pytest.raises(InputError, match="holds a demo of another base model than sd: name another --out"):
        demo.run(demo.Options(out=out, comfyui=comfyui))
    assert not any((comfyui / "models").iterdir())
