"""npnet demo on the shipped models, at a scale of seconds: collect, fit, compare, page, tables."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from npnet_core.checkpoint import load_npnet
from npnet_core.npd import NPDReader
from trainer.commands import demo
from trainer.commands.cli import main
from trainer.shapes import page, pipeline_stages, tables, workers, world
from trainer.shapes.worlds import WORLDS, Scale

SCALE = Scale(captions=60, seeds=1, reported_captions=4, reported_seeds=2)


def run(out: Path, scale: Scale = SCALE, *, processes: bool = False, **options) -> Path:
    """The demo at that scale and, like all tests, on one thread: that is what is changed about it.

    Args:
        processes: each worker's part in a process of its own, as people run it; a process imports torch, so otherwise
            it is one part after the other.
    """
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "THREADS", 1)
        if not processes:
            for module in (workers, tables):
                patch.setattr(module, "in_parallel", one_after_the_other)
        for name, world in WORLDS.items():
            patch.setitem(WORLDS, name, partial(at_scale, world, scale))
        demo.run(demo.Options(out=out, **options))
    torch.set_num_threads(threads)
    return out


def one_after_the_other(work, *args, **kwargs) -> None:
    for i in range(workers.WORKERS):
        work(*args, worker=(i, workers.WORKERS), **kwargs)


def at_scale(make, scale: Scale, *weights: Path):
    return replace(make(*weights), quick=scale, full=scale)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("demo") / "demo", processes=True)


def figures(folder: Path) -> dict:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {name: results[name] for name in ("methods", "pairs", "standard", "items")}


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
    assert {row["setting"] for row in rows} == {"ddim-10-cfg1-32x32", "ddim-10-cfg3-32x32"}
    assert all(row["n"] == 8 for row in rows)
    html = (folder / "report.html").read_text(encoding="utf-8")
    for title in ("Where the nets come from", "What they learnt", "What they do to the noise"):
        assert f"{title}</h2>" in html
    assert html.count("<svg") > len(pipeline_stages.NETS)
    equal_cost = json.loads((folder / "results.json").read_text(encoding="utf-8"))["equal_cost"]
    assert len(equal_cost) == 2 * (1 + len(pipeline_stages.NETS))
    assert all(set(demo.RIVALS) & set(each["among"]) for each in equal_cost)
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


def test_tables(folder, monkeypatch):
    monkeypatch.setattr(tables, "VARIANTS", tables.VARIANTS[:2])
    monkeypatch.setattr(tables, "SEVEN", ["ddim", "heun"])
    monkeypatch.setattr(tables, "GUIDANCE", (1.0, 2.0))
    run(folder, tables=True)
    text = (folder / "tables.md").read_text(encoding="utf-8")
    for name in ("without-singular-values", "heun-10-cfg1-32x32", "ddim-10-cfg2-32x32", "ddim-10-cfg3-40x24"):
        assert name in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ddim")}
    assert widths == {7}


@pytest.mark.parametrize(("base", "metrics"), [("flow", {"shapes-b", "shapes-a"}), ("first", {"shapes"})])
def test_other_bases_run_too(base, metrics, tmp_path):
    folder = run(tmp_path, Scale(captions=60, seeds=1, reported_captions=2, reported_seeds=1), base=base)
    rows = figures(folder)["methods"]
    assert {row["metric"] for row in rows} >= metrics
    assert {row["method"] for row in rows} >= set(pipeline_stages.NETS)
    assert f"--base {base}" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_first_world_is_not_trained_anew(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--base", "first", "--retrain"]) == 2
    assert "--retrain came with --base first" in capsys.readouterr().err
