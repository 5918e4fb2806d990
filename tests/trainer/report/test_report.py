"""The page: its figures are those of results.json, it needs nothing else, and nothing that users wrote is markup."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape
from PIL import Image

from npnet_core.errors import InputError
from tests.markup import having, parse, section, tables, words
from tests.sample_run import ABOUT, METHODS, SETTINGS, sample_run
from trainer.evaluation.equal_cost import cost_of
from trainer.evaluation.results import summarise
from trainer.report import conclusions, labels, pictures
from trainer.report.charts import (
    Bar,
    Mark,
    cost_chart,
    cost_ticks,
    difference_bars,
    paired_scatter,
    side_by_side,
    win_bars,
)
from trainer.report.formatting import brief, decimals, fixed, interval, listed, percent, signed
from trainer.report.gallery import ALL, GAIN, LOSS, MIDDLE, choose, thumbnail
from trainer.report.page import Section, page, table
from trainer.report.report import write_report

ROOT = Path(__file__).resolve().parents[3]
PROMPTS, SEEDS = 18, 3
NASTY = (
    "<script>alert(1)</script>",
    "</title></style><img src=x onerror=alert(1)>",
    "a \"quoted\" & 'single' prompt, 5 < 6 | `code` *star* [link](http://example.com)",
    "🦊🏳️‍🌈 emoji",
    "קוף אדום ליד \u202eשמאל",
    "two\nlines",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, results, page, Markdown) of a comparison with everything that a page can have."""
    out = tmp_path_factory.mktemp("run")
    rows = sample_run(out, PROMPTS, SEEDS)
    rows += [each | {"metric": "mps", "score": each["score"] / 2} for each in rows if each["metric"] == "shapes"]
    categories = {each["prompt"]: each["prompt"].split()[1] for each in rows}
    rows = [each | {"category": categories[each["prompt"]]} for each in rows]
    metrics = ABOUT["metrics"] | {"mps": {"factor": 100, "label": "MPS ×100"}}
    fid = {setting: dict.fromkeys(METHODS, 21.5) for setting in SETTINGS}
    about = ABOUT | {"metrics": metrics, "fid": fid, "missing": ["The weights of imagereward are missing."]}
    results = summarise(rows, about)
    write_report(out, results, [Section("Learning curve", "<p>drawn</p>", "drawn\n")])
    content = (out / "report.html").read_text(encoding="utf-8")
    return out, results, parse(content), (out / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with pictures of six prompts at one setting, and its rows."""
    out = tmp_path_factory.mktemp("pictures")
    setting = next(iter(SETTINGS))
    return out, [each for each in sample_run(out, 6, methods=("standard", "npnet")) if each["setting"] == setting]


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("\u202f", "").rstrip("%"))


def numbers(text: str) -> list[float]:
    return [number(found) for found in re.findall(r"[+−]?\d+(?:\.\d+)?", text)]


# -- what it says is what was found -----------------------------------------------------------------------------------


def test_every_number_of_the_table_is_in_the_results(run):
    out, _, root, _ = run
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    found = tables(section(root, "Scores"))
    assert len(found) == len(SETTINGS)
    checked = 0
    for setting, (head, *rows) in zip(SETTINGS, found, strict=True):
        names = ["caption log-likelihood", "captions right", "MPS ×100", "FID ↓"]
        assert head == ["method", "predictions", "seconds", *names]
        assert [row[0] for row in rows] == list(METHODS)
        for method, *spent, cells, fid in ((row[0], *row[1:3], row[3:-1], row[-1]) for row in rows):
            assert fid == "21.50"
            cost = cost_of(results["about"], setting, method)
            assert [float(each) for each in spent] == pytest.approx([cost["predictions"], cost["seconds"]], abs=5e-4)
            for metric, cell in zip(("shapes", "captions-right", "mps"), cells, strict=True):
                checked += 1
                scale = 1 if metric == "shapes" else 100
                if method == "standard":
                    means = [e["mean"] for e in results["standard"] if (e["setting"], e["metric"]) == (setting, metric)]
                    assert number(cell) == pytest.approx(scale * means[0], abs=0.06) if means else cell == "–"
                    continue
                (entry,) = (
                    e
                    for e in results["methods"]
                    if (e["setting"], e["method"], e["metric"]) == (setting, method, metric)
                )
                mean, versus = cell.split("\n")
                kind = "difference" if metric == "captions-right" else "wins"
                expected = [100 * entry[name] for name in (kind, f"{kind}_low", f"{kind}_high")]
                assert number(mean) == pytest.approx(scale * entry["mean"], abs=0.06)
                assert numbers(versus) == pytest.approx(expected, abs=0.051)
    assert checked == 2 * 5 * 3


def test_the_table_of_all_comparisons_is_the_results(run):
    _, results, root, _ = run
    rows = [row for table in tables(section(root, "All comparisons")) for row in table[1:]]
    entries = sorted(results["methods"] + results["pairs"], key=lambda e: list(SETTINGS).index(e["setting"]))
    assert len(rows) == len(entries) == results["families"]["methods"]
    for (method, predictions, _, metric, n, ties, *figures), entry in zip(rows, entries, strict=True):
        wins, wins95, mean, mean95, p, p_holm = figures
        assert float(predictions) == (23 if entry["method"] == "inversion" else 20)
        versus = f" against {entry['versus']}" if "versus" in entry else ""
        assert (method, metric) == (entry["method"] + versus, labels.label(results, entry["metric"]))
        assert (number(n), number(ties)) == (entry["n"], entry["ties"])
        scale = 1 if entry["metric"] == "shapes" else 100
        assert numbers(wins + wins95) == pytest.approx(
            [100 * entry[name] for name in ("wins", "wins_low", "wins_high")], abs=0.051
        )
        expected = [scale * entry[name] for name in ("difference", "difference_low", "difference_high")]
        assert numbers(mean + mean95) == pytest.approx(expected, abs=0.06)
        for shown, value in ((p, entry["p"]), (p_holm, entry["p_holm"])):
            assert value < 0.001 if shown == "<0.001" else float(shown) == pytest.approx(value, abs=0.00051)


def test_markdown_has_the_same_tables(run):
    _, _, root, lines = run
    for heading in ("Scores", "All comparisons", "Cost"):
        for rows in tables(section(root, heading)):
            for row in rows[1:]:
                cells = [cell.split("\n") for cell in row]
                expected = [cell[0] if len(cell) == 1 else f"{cell[0]} ({cell[1]})" for cell in cells]
                line = "| " + " | ".join(re.sub(r"([\[\]_<])", r"\\\1", cell) for cell in expected) + " |"
                assert line in lines


def test_sections_come_in_order(run):
    _, _, root, lines = run
    titles = [words(each.find("h2")) for each in root.iter("section") if each.find("h2") is not None]
    assert titles == [
        "What this run shows",
        "Quality against cost",
        "Scores",
        "Other metrics",
        "Pairs of scores",
        "Nets against each other",
        "By category",
        "Pictures",
        "Learning curve",
        "Cost",
        "The nets themselves",
        "All comparisons",
        "How it was made",
    ]
    assert re.findall(r"^## (.*)$", lines, re.M) == titles
    assert [words(each) for each in root.find(".//nav").iter("li")] == titles
    links = [each.get("href")[1:] for each in root.find(".//nav").iter("a")]
    assert links == [each.get("id") for each in root.find(".//main").findall("section")]


def test_categories_are_all_there(run):
    _, results, root, _ = run
    rows = [row for table in tables(section(root, "By category")) for row in table[1:]]
    assert {row[0] for row in rows} == {f"{e['category']} · {e['method']}" for e in results["categories"]}
    assert len(rows) * 3 == len(results["categories"])


def test_predictions_stand_beside_seconds(run):
    _, results, root, _ = run
    for head, *rows in tables(section(root, "Cost")):
        assert head[:3] == ["method", "predictions", "seconds per image"]
        counted = {row["method"]: row["predictions"] for row in results["about"]["cost"]}
        assert {row[0]: float(row[1]) for row in rows} == counted


def test_the_page_begins_with_what_is_best_at_equal_cost(run):
    _, results, root, _ = run
    paragraphs = [words(each) for each in section(root, "What this run shows").iter("p")]
    for setting, sentence in zip(SETTINGS, paragraphs, strict=False):
        entries = [each for each in results["equal_cost"] if each["setting"] == setting]
        assert [each["method"] for each in entries] == ["inversion", "npnet", "npnet-unselected"]
        assert sentence.startswith(labels.setting_title(results, setting))
        assert "Beside standard and golden noise no method was run" in sentence
        assert any(f"best spent on {each['best']} stays open" in sentence for each in entries)


def test_every_method_has_a_mark_where_it_costs_and_gains(run):
    _, results, root, _ = run
    spending = section(root, "Quality against cost")
    for setting, chart, (head, *rows) in zip(SETTINGS, having(spending, "costs"), tables(spending), strict=True):
        assert head == ["method", "predictions", "seconds", "difference [95 %]"]
        assert [row[0].split(" · ")[1] for row in rows] == list(METHODS)
        entries = {e["method"]: e for e in results["methods"] if (e["setting"], e["metric"]) == (setting, "shapes")}
        drawn = [each for side in ("up", "down", "open") for each in having(chart, f"mark-{side}")]
        assert sorted(words(each.find("text")) for each in drawn) == [row[0][0] for row in rows]
        for each in drawn:
            letter, title = words(each.find("text")), words(each.find("title"))
            method = next(row[0] for row in rows if row[0].startswith(letter)).split(" · ")[1]
            assert title.startswith(f"{method}: {labels.spent(results, setting, method)}")
            assert (each.find("circle") is not None) == (method in ("inversion", "npnet", "npnet-unselected"))
            if method != "standard":
                assert labels.gain(results, entries[method]) in title


def test_marks_lie_where_their_figures_are():
    marks = [
        Mark("A", 10, 0.0, 0.0, 0.0, "open", False, "standard"),
        Mark("B", 40, 1.5, 1.0, 2.0, "up", False, "best of 4"),
        Mark("C", 20, -0.5, -1.0, 0.2, "open", True, "net"),
        Mark("D", 20, 0.5, 0.1, 1.0, "up", True, "other net"),
    ]
    root = parse(cost_chart(marks, "predictions", "gain"))
    texts = [each for each in root.iter("text") if re.fullmatch(r"[+−]?[\d.]+", words(each))]
    xs = {math.log(number(words(e))): float(e.get("x")) for e in texts if e.get("text-anchor") == "middle"}
    ys = {number(words(e)): float(e.get("y")) for e in texts if e.get("text-anchor") == "end"}
    places = {words(each.find("text")): each.find("text") for each in root.iter("g")}
    for mark in marks:
        x, y = (float(places[mark.letter].get(axis)) for axis in "xy")
        assert x == pytest.approx(np.interp(math.log(mark.cost), list(xs), list(xs.values())), abs=10)  # moved apart
        assert y == pytest.approx(np.interp(mark.value, sorted(ys), [ys[key] for key in sorted(ys)]), abs=0.15)
    assert float(places["D"].get("x")) - float(places["C"].get("x")) >= 16
    assert len(having(root, "interval")) == 3


@given(st.lists(st.floats(0, 500), min_size=1, max_size=20))
def test_marks_stand_side_by_side(places):
    moved = side_by_side(places, 18)
    order = sorted(range(len(places)), key=lambda i: places[i])
    in_order = [moved[i] for i in order]
    assert all(b - a >= 18 - 0.11 for a, b in itertools.pairwise(in_order))
    assert sum(moved) == pytest.approx(sum(places), abs=len(places))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(10, 40, [10, 20, 50]), (10, 100, [10, 20, 50, 100]), (3, 11, [2, 5, 10, 20]), (10, 10, None), (0.4, 1, None)],
)
def test_ticks_of_costs(low, high, expected):
    found = cost_ticks(low, high)
    assert 0 < found[0] <= low
    assert found[-1] >= high
    assert expected is None or found == pytest.approx(expected)


def test_metrics_that_select_are_told_from_those_that_report(folder):
    """The nets were chosen by one detector; the other says something else of one method."""
    _, rows = folder
    shapes = [each for each in rows if each["metric"] == "shapes" and each["method"] == "standard"]
    shapes += [each | {"method": "best-of-2-shapes", "score": each["score"] + 3} for each in shapes]
    other = [each | {"metric": "other", "score": float(each["seed"])} for each in shapes]
    about = {"methods": {"best-of-2-shapes": "chosen"}, "metrics": {"shapes": {}, "other": {}}}
    chose = "shapes had a hand in what is compared: noises, pairs or settings were chosen by it, or nets trained on it"
    assert conclusions.parting(summarise(shapes + other, about)) == [
        f"{chose}; other had none, and what is concluded here rests on it.",
        "They part on no method.",  # of six pairs nothing is significant
    ]
    many = [each | {"seed": seed} for each in shapes + other for seed in range(20)]
    assert conclusions.parting(summarise(many, about))[1:] == [
        "They part on best-of-2-shapes: shapes higher, other no difference shown."
    ]
    assert conclusions.parting(summarise(shapes, about)) == [
        f"{chose}, and no other metric was run: the gains shown may be flattery."
    ]
    assert conclusions.parting(summarise(other, about)) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("higher", "higher", False),
        ("higher", "no difference shown", True),
        ("higher", "lower", True),
        ("perhaps higher", "no difference shown", False),
        ("perhaps higher", "higher", True),
    ],
)
def test_where_metrics_part(one, other, expected):
    assert conclusions.parted(one, other) == expected


def test_what_could_not_be_computed_is_said(run):
    _, _, root, _ = run
    assert "The weights of imagereward are missing." in words(section(root, "What this run shows"))


def test_related_pairs_are_said_to_be_related(run):
    _, results, _, _ = run
    assert any(f"54 pairs come from {PROMPTS} prompts" in sentence for sentence in conclusions.limits(results))


# -- words ------------------------------------------------------------------------------------------------------------


def compared(wins=0.5, half=0.05, difference=0.0, spread=0.1, p=0.01, n=400, ties=0, metric="m", method="net") -> dict:
    interval = {"wins": wins, "wins_low": wins - half, "wins_high": wins + half}
    means = {"difference": difference, "difference_low": difference - spread, "difference_high": difference + spread}
    names = {"setting": "s", "method": method, "metric": metric, "n": n, "ties": ties, "mean": 1.0, "standard": 1.0}
    return names | interval | means | {"p": p / 20, "p_holm": p}


def results_of(*entries: dict, binary=(), n=400, prompts=400) -> dict:
    metrics = list(dict.fromkeys(each["metric"] for each in entries))
    standard = [{"setting": "s", "metric": metric, "n": n, "mean": 1.0} for metric in metrics]
    return {
        "about": {},
        "n": n,
        "prompts": prompts,
        "binary": list(binary),
        "families": {"methods": len(entries), "categories": 0},
        "standard": standard,
        "methods": list(entries),
        "pairs": [],
        "categories": [],
        "items": [],
    }


@given(st.floats(0.1, 0.9), st.floats(0.005, 0.1), st.floats(0, 1))
def test_no_difference_is_said_if_and_only_if_the_interval_contains_one_half(wins, half, p):
    entry = compared(wins, half, p=p)
    results = results_of(entry)
    contains = round(entry["wins_low"], 3) <= 0.5 <= round(entry["wins_high"], 3)
    said = conclusions.headline(results, [entry]) + conclusions.detail(results, entry)
    assert ("contains one half" in said) == ("No difference shown" in said) == contains
    assert ("no surprise" in said) == ("Weak evidence" in said) == (not contains and p >= 0.05)
    assert ("Higher than standard" in said) == (not contains and p < 0.05 and wins > 0.5)
    assert ("Lower than standard" in said) == (not contains and p < 0.05 and wins < 0.5)


def test_the_sentence_has_the_figures():
    entry = compared(0.58, 0.044, n=2000, ties=7)
    assert conclusions.detail(results_of(entry), entry).startswith(
        "m: won 58.0\u202f% of 2\u202f000 pairs, 7 ties counted half, 95\u202f% interval 53.6 to 62.4\u202f%."
    )


def test_binary_metrics_are_judged_by_their_difference():
    """60 up, 29 down, 411 equal: the winning rate's interval contains one half, the difference's not zero."""
    entry = compared(0.531, 0.044, 0.062, 0.037, p=0.002, n=500, ties=411) | {"mean": 0.472, "standard": 0.41}
    results = results_of(entry, binary=["m"])
    assert conclusions.conclusion(results, entry) == conclusions.HIGHER
    said = conclusions.detail(results, entry)
    assert "47.2\u202f% instead of 41.0\u202f% (60 pairs up, 29 down, 411 equal), +6.2 points" in said
    assert "95\u202f% interval 2.5 to 9.9" in said


def test_how_often_and_how_much_may_disagree():
    often = compared(0.6, 0.05, 0.01, 0.1)
    assert "does not exclude zero" in conclusions.detail(results_of(often), often)
    much = compared(0.52, 0.05, 0.3, 0.1)
    assert "does exclude zero" in conclusions.detail(results_of(much), much)


def test_metrics_of_one_conclusion_share_a_clause():
    entries = [compared(0.6, metric="a"), compared(0.61, metric="b"), compared(0.51, metric="c")]
    said = conclusions.headline(results_of(*entries), entries)
    assert said == "Higher than standard in a and b; no difference shown in c."


@pytest.mark.parametrize(
    ("own", "control", "said"),
    [
        (0.6, 0.4, "turns into a loss"),
        (0.6, 0.5, "no gain is shown"),
        (0.6, 0.6, "nothing to do with the prompt"),
        (0.5, 0.6, "shows no gain here"),
    ],
)
def test_what_a_control_says(own, control, said):
    entries = compared(own), compared(control, method="wrong-prompt-net")
    assert said in conclusions.on_control(results_of(*entries), entries[1], entries[0])


def test_without_a_control_that_stays_open():
    said = conclusions.limits(results_of(compared(0.6)))
    assert any("No control" in sentence for sentence in said)
    with_control = results_of(compared(0.6), compared(0.4, method="wrong-prompt-net"))
    assert not any("No control" in sentence for sentence in conclusions.limits(with_control))


def test_numerals():
    assert fixed(-0.001, 2) == "0.00"
    assert (fixed(-1.5, 1), signed(1.5, 1), signed(-1.5, 1), signed(0.0, 1)) == ("−1.5", "+1.5", "−1.5", "0.0")
    assert percent(0.5801) == "58.0\u202f%"
    assert interval(-0.02, 0.31, 1, 100) == "[−2.0, 31.0]"
    assert [decimals(spread) for spread in (0, 12, 4.4, 0.3, 0.044)] == [2, 0, 1, 2, 3]
    assert [brief(value) for value in (None, 12345, 0.123456, "x", True)] == ["–", "12\u202f345", "0.1235", "x", "True"]
    assert [listed(list(parts)) for parts in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


# -- one file, read anywhere ------------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_anywhere(run):
    out, _, root, _ = run
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
                assert value.startswith(("data:image/", "#")), (element.tag, name, value[:80])
    assert {each.tag for each in root.iter()} & {"link", "iframe", "object", "embed", "base"} == set()
    content = (out / "report.html").read_text(encoding="utf-8")
    outside = re.sub(r'src="data:[^"]*"', "", content)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", outside)


def test_the_policy_lets_the_pages_own_script_run_and_nothing_else(run):
    _, _, root, _ = run
    (script,) = root.iter("script")
    digest = base64.b64encode(hashlib.sha256(words(script).encode()).digest()).decode()
    (policy,) = (each.get("content") for each in root.iter("meta") if each.get("http-equiv"))
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")


def test_every_chart_is_xml(run):
    out, _, _, _ = run
    content = (out / "report.html").read_text(encoding="utf-8")
    drawn = re.findall(r"<svg.*?</svg>", content, re.S)
    assert len(drawn) > 50
    for svg in drawn:
        ElementTree.fromstring(svg)


def test_all_is_there_without_scripts(run):
    _, _, root, _ = run
    hidden = [each for each in root.iter() if "hidden" in each.attrib]
    assert [each.tag for each in hidden if each.tag != "label"] == ["form"]  # what does nothing without them


def rows_of(prompts, category=None, image=None) -> list[dict]:
    rows = []
    for i, prompt in enumerate(prompts):
        for method, score in (("standard", 0.5), ("<b>net</b>|x", 0.5 + i)):
            row = {"setting": "<i>s</i>", "method": method, "metric": "<u>m</u>", "prompt": prompt, "seed": 1}
            rows.append(row | {"category": category, "score": score, "image": image})
    return rows


def test_what_users_wrote_is_text(folder, tmp_path):
    out, rows = folder
    shutil.copy(out / rows[0]["image"], tmp_path / "x.png")
    evil = "<script>alert(2)</script>"
    about = {
        "title": f"Title {evil}",
        "introduction": [evil],
        "command": f"npnet evaluate --base '{evil}'",
        "base_model": evil,
        "nets": {"<b>net</b>|x": {evil: evil}},
        "versions": {evil: evil},
        "methods": {"standard": evil, "<b>net</b>|x": evil},
        "metrics": {"<u>m</u>": {"factor": 1, "label": evil}},
        "diagnostics": {"<b>net</b>|x": {evil: 1.0}},
        "missing": [evil],
    }
    results = summarise(rows_of(NASTY, category=evil, image="x.png"), about)
    write_report(tmp_path, results)
    root = parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(list(root.iter("script"))) == 1
    assert not {each.tag for each in root.iter()} & {"i", "u"}
    assert all(each.get("src").startswith("data:") for each in root.iter("img"))
    prompts = [words(each) for each in having(root, "prompt")]
    assert sorted(prompts) == sorted(NASTY)
    assert {each.get("dir") for each in having(root, "prompt")} == {"auto"}
    assert {words(each) for each in having(root, "category")} == {evil}
    assert evil in words(root.find(".//pre"))
    lines = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"\n    {about['command']}\n" in lines
    outside = re.sub(r"^    .*$", "", lines, flags=re.M)
    assert "\\<script\\>" in outside
    assert not re.search(r"(?<!\\)<", outside)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_any_text_survives(prompt):
    root = parse(page("t", [Section("s", table(["a", "b"], [[prompt, 1]]).html)]))
    assert tables(root)[0][1][0] == prompt


def test_markup_is_not_escaped_twice():
    assert escape(escape("<")) == "&lt;"
    assert table(["a"], [[Markup("<b>x</b>")]]).html.count("<b>x</b>") == 1


def test_a_table_is_rectangular():
    with pytest.raises(ValueError, match="3 cells"):
        table(["a", "b"], [["x", 1, 2]])


# -- charts -----------------------------------------------------------------------------------------------------------


def across(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name).rstrip("%"))


@pytest.mark.parametrize(("draw", "centre"), [(win_bars, 0.5), (difference_bars, 0.0)])
def test_bars_lie_where_their_values_are(draw, centre):
    bars = [
        Bar("a", centre + 0.08, centre + 0.04, centre + 0.12),
        Bar("b", centre - 0.02, centre - 0.06, centre + 0.03),
    ]
    root = parse(draw(bars))
    rows = having(root, "bar")
    labels = {number(words(each)) / 100: across(each, "x") for each in rows[-1].iter("text")}
    (low, left), (high, right) = min(labels.items()), max(labels.items())

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    for bar, row in zip(bars, rows, strict=False):
        (rect,) = row.iter("rect")
        ends = sorted((bar.value, centre))
        assert across(rect, "x") == pytest.approx(place(ends[0]), abs=0.02)
        assert across(rect, "width") == pytest.approx(place(ends[1]) - place(ends[0]), abs=0.02)
        assert next((across(e, "x1"), across(e, "x2")) for e in having(row, "interval")) == pytest.approx(
            (place(bar.low), place(bar.high)), abs=0.02
        )
        (line,) = having(row, "centre")
        assert across(line, "x1") == pytest.approx(place(centre), abs=0.02)
    assert [row.get("class") for row in rows] == ["bar up", "bar open", "bar axis"]


def test_a_certain_win_fits_the_axis():
    labels = [number(words(each)) for each in parse(win_bars([Bar("a", 1.0, 0.9, 1.0)])).iter("text")]
    assert max(labels) <= 100
    assert min(labels) >= 0
    assert 50 in labels


def test_dots_lie_where_their_scores_are():
    a, b = [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 4.0]
    root = parse(paired_scatter(a, b))
    texts = [(number(words(each)), each) for each in root.iter("text")]
    xs = {value: float(each.get("x")) for value, each in texts if each.get("text-anchor") == "middle"}
    ys = {value: float(each.get("y")) for value, each in texts if each.get("text-anchor") == "end"}
    found = []
    for dots in having(root, "dots"):
        points = [tuple(map(float, point)) for point in re.findall(r"M([\d.]+) ([\d.]+)h0", dots.get("d"))]
        found += [(dots.get("class").split()[1], *point) for point in points]
    expected = [("open", 1.0, 1.0), ("down", 2.0, 1.0), ("up", 0.0, 1.0), ("up", 3.0, 4.0)]
    for (side, x, y), (expected_side, p, q) in zip(found, expected, strict=True):
        assert side == expected_side
        assert x == pytest.approx(np.interp(p, sorted(xs), [xs[key] for key in sorted(xs)]), abs=0.15)
        assert y == pytest.approx(np.interp(q, sorted(ys), [ys[key] for key in sorted(ys)]), abs=0.15)


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_the_grid_holds_losers(run):
    _, results, root, _ = run
    groups = having(root, "group")
    assert len(groups) == len(SETTINGS) * 2  # of the nets
    wanted = [(setting, net) for setting in SETTINGS for net in ("npnet", "npnet-unselected")]
    for group, (setting, net) in zip(groups, wanted, strict=True):
        scores = [item["scores"]["shapes"] for item in results["items"] if item["setting"] == setting]
        gains = sorted((each[net] - each["standard"] for each in scores), reverse=True)
        shown = [float(each.get("data-gain")) for each in having(group, "pair")]
        assert [words(each) for each in having(group, "place")] == [GAIN, MIDDLE, LOSS]
        assert shown[:8] == gains[:8]
        assert shown[-8:] == gains[-8:]
        assert min(shown) < 0
        assert shown[8:16] == gains[23:31]
        assert "24 of 54 pairs" in words(having(group, "note")[0])


def test_pictures_are_their_files(run):
    out, results, root, _ = run
    group = having(root, "group")[0]
    first = having(group, "pair")[0]
    prompt, seed = words(having(first, "prompt")[0]), int(words(having(first, "seed")[0]).split()[1])
    setting = next(iter(SETTINGS))
    (item,) = (e for e in results["items"] if (e["setting"], e["prompt"], e["seed"]) == (setting, prompt, seed))
    for image, method in zip(first.iter("img"), ("standard", "npnet"), strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(image.get("src").partition("base64,")[2])))
        assert image.get("class") == "pixels"
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(Image.open(out / item["images"][method])))


def test_small_images_are_enlarged_by_whole_pixels():
    assert ".pixels { image-rendering: pixelated; }" in page("t", [])


def test_large_images_become_thumbnails(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 900, 3), np.uint8)).save(tmp_path / "large.png")
    picture = thumbnail(tmp_path / "large.png", "standard")
    assert (picture.width, picture.height) == (320, 213)
    assert picture.source.startswith("data:image/jpeg")
    assert len(picture.source) < 100_000


def test_pictures_stay_within_their_budget(folder, monkeypatch):
    out, rows = folder
    results = summarise(rows, ABOUT)
    assert "All 6 pairs" in pictures.pictures(out, results).html
    pair = sum(
        len(each.source)
        for each in pictures.pair_of(out, results, results["items"][0], "npnet", "shapes", ALL).pictures
    )
    monkeypatch.setattr(pictures, "BUDGET", 3 * pair)
    html = pictures.pictures(out, results).html
    assert len(having(parse(html), "pair")) == 3
    assert "3 of 6 pairs" in html


def test_images_that_are_gone(folder, tmp_path):
    out, rows = folder
    results = summarise(rows, ABOUT)
    shutil.copytree(out / "images", tmp_path / "images")
    next(iter(tmp_path.glob("images/*/npnet/*.png"))).unlink()
    with pytest.raises(InputError, match=r"that the scores name cannot be read"):
        write_report(tmp_path, results)


def test_without_images_there_is_no_grid(folder, tmp_path):
    _, rows = folder
    results = summarise([each | {"image": None} for each in rows], ABOUT)
    write_report(tmp_path, results)
    root = parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not having(root, "gallery")


def test_standard_alone_makes_a_page(folder, tmp_path):
    _, rows = folder
    results = summarise([each for each in rows if each["method"] == "standard"], {})
    write_report(tmp_path, results)
    assert tables(section(parse((tmp_path / "report.html").read_text(encoding="utf-8")), "Scores"))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 9))
def test_chosen_pairs_are_distinct_and_sorted(gains, each):
    chosen = choose(gains, each)
    indices = [i for part in chosen.values() for i in part]
    assert len(set(indices)) == len(indices) == min(len(gains), 3 * each)
    assert [gains[i] for i in indices] == sorted((gains[i] for i in indices), reverse=True)
    assert max(gains) == gains[indices[0]]
    assert min(gains) == gains[indices[-1]]


@pytest.mark.parametrize(
    "code",
    [
        "from trainer.commands.cli import main\nmain(['--help'])",
        "from trainer.commands.cli import main\ntry:\n    main(['collect', '--help'])\nexcept SystemExit:\n    pass",
        "import trainer.commands.collect",
    ],
    ids=["--help", "collect --help", "collect"],
)
def test_what_only_a_report_needs_is_imported_for_a_report(code):
    code += (
        "\nimport sys\nprint([name for name in ('jinja2', 'scipy', 'statsmodels', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
