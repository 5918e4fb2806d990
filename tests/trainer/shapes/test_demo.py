"""npnet demo on the shipped models, at a scale of seconds: collect, fit, compare, page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from npnet_core.checkpoint import load_npnet
from npnet_core.npd import NPDReader
from tests.demo_run import figures, run
from trainer.commands import demo
from trainer.commands.cli import main
from trainer.shapes import page, pipeline_stages, workers, world


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("demo") / "demo", processes=True)


def test_the_page_compares_what_it_should(folder):
    rows = figures(folder)["methods"]
    methods = {
        "inversion",
        *demo.RIVALS,
        *pipeline_stages.NETS,
        *(f"wrong-prompt-{name}" for name in ("inversion", *pipeline_stages.NETS)),
    }
    assert {row["method"] for row in rows} == methods
    measured = {"shapes-b", "captions-right", "shapes-a"}
    assert measured <= {row["metric"] for row in rows}
    assert {row["setting"] for row in rows} == {"ddim-5-cfg1-32x32", "ddim-10-cfg3-32x32"}
    assert all(row["n"] == 8 for row in rows)
    html = (folder / "report.html").read_text(encoding="utf-8")
    for title in ("Where the nets come from", "What they learnt", "What they do to the noise"):
        assert f"{title}</h2>" in html
    assert html.count("<svg") > len(pipeline_stages.NETS)
    equal_cost = json.loads((folder / "results.json").read_text(encoding="utf-8"))["equal_cost"]
    assert len(equal_cost) == 2 * (1 + len(pipeline_stages.NETS))
    assert all(set(demo.RIVALS) & set(each["among"]) for each in equal_cost if each["predictions"] >= 6)
    pictures = 5 * page.SHOWN * len(pipeline_stages.NETS)
    assert html.count('class="pixels"') >= pictures


def test_wins_follow_from_the_scores_on_disk(folder):
    files = list(folder.glob("scores*.jsonl"))
    assert len(files) == workers.WORKERS
    scores = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    of = {(r["metric"], r["method"], r["setting"], r["prompt"], r["seed"]): r["score"] for r in scores}
    for row in figures(folder)["methods"]:
        wins = []
        for (metric, method, *where), score in of.items():
            if (metric, method, where[0]) == (row["metric"], row["method"], row["setting"]):
                standard = of[(metric, "standard", *where)]
                wins.append((score > standard) + (score == standard) / 2)
        assert row["wins"] == pytest.approx(sum(wins) / len(wins))


def test_nothing_is_reported_that_was_chosen_on(folder):
    choosing, reporting = world.split_captions()
    reader = NPDReader(folder / "pairs")
    assert len(reader) == 60
    assert set(reader.prompts) <= set(choosing)
    assert {record.key.seed for record in reader.records} <= set(pipeline_stages.COLLECTED_SEEDS)
    items = figures(folder)["items"]
    assert {item["prompt"] for item in items} <= set(reporting)
    assert {item["seed"] for item in items}.isdisjoint(pipeline_stages.COLLECTED_SEEDS)


def test_the_same_numbers_every_time(folder, tmp_path):
    assert figures(run(tmp_path / "again")) == figures(folder)


def test_what_is_there_is_not_made_again(folder):
    nets = [folder / f"fit-{name}" / "npnet.safetensors" for name in pipeline_stages.NETS]
    made = [*nets, *folder.glob("images/**/*.png"), *folder.glob("pairs/parts/*")]
    before = {path: path.stat().st_mtime_ns for path in made}
    assert len(before) > 100
    run(folder)
    assert {path: path.stat().st_mtime_ns for path in made} == before


def test_its_nets_are_like_any_other(folder, capsys):
    path = folder / "fit-npnet" / "npnet.safetensors"
    npnet = load_npnet(path)
    assert (npnet.config.resolution, npnet.config.prompt_dim) == (8, 64)
    assert main(["inspect", str(path)]) == 0
    assert "prompt dependence" in capsys.readouterr().out
    assert main(["inspect", "--svd", str(path)]) == 2
    assert "is no dataset" in capsys.readouterr().err


def test_a_file_as_out_is_refused(tmp_path, capsys):
    path = tmp_path / "page.html"
    path.write_text("mine", encoding="utf-8")
    assert main(["demo", "--out", str(path)]) == 2
    assert f"--out {path} is a file, and the demo fills a folder: name" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "mine"


def test_the_first_world_is_not_trained_anew(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--base", "first", "--retrain"]) == 2
    assert "--retrain came with --base first" in capsys.readouterr().err
