"""npnet demo with --tables, and in the other worlds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.demo_run import SCALE, figures, run
from trainer.shapes import pipeline_stages, tables
from trainer.shapes.worlds import Scale


def test_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "VARIANTS", tables.VARIANTS[:2])
    monkeypatch.setattr(tables, "SEVEN", ["ddim", "heun"])
    monkeypatch.setattr(tables, "GUIDANCE", (1.0, 2.0))
    run(tmp_path, replace(SCALE, reported_captions=2), steps=4, tables=True)
    text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    for name in ("without-singular-values", "heun-4-cfg1-32x32", "ddim-4-cfg2-32x32", "ddim-4-cfg3-40x24"):
        assert name in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ddim")}
    assert widths == {7}


@pytest.mark.parametrize(("base", "metrics"), [("flow", {"shapes-b", "shapes-a"}), ("first", {"shapes"})])
def test_other_bases_run_too(base, metrics, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline_stages, "NETS", {"unet": pipeline_stages.NETS["unet"]})  # one is enough
    folder = run(tmp_path, Scale(captions=60, seeds=1, reported_captions=2, reported_seeds=1), steps=4, base=base)
    rows = figures(folder)["methods"]
    assert {row["metric"] for row in rows} >= metrics
    assert {row["method"] for row in rows} >= set(pipeline_stages.NETS)
    assert f"--base {base}" in (folder / "report.html").read_text(encoding="utf-8")
