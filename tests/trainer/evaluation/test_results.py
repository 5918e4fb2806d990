"""Figures of a comparison against a case counted by hand, scipy and statsmodels."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import scipy.special
import scipy.stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from npnet_core.errors import InputError
from tests.sentences import is_one_sentence
from trainer.evaluation.results import summarise, write_results

NETS = {"nets": {"a": {}, "b": {}}}


def row(method: str, score, prompt="p", seed=0, metric="hpsv2", setting="s", category=None, image=None) -> dict:
    return {
        "setting": setting,
        "method": method,
        "metric": metric,
        "prompt": prompt,
        "category": category,
        "seed": seed,
        "score": score,
        "image": image,
    }


def drawn(methods=("standard", "a", "b"), metrics=("hpsv2", "right", "mps"), settings=("s", "t"), n=80) -> list[dict]:
    """Scores by chance; "right" is 0 or 1, and equal often."""
    rng = np.random.default_rng(0)
    rows = []
    for setting in settings:
        for metric in metrics:
            for method in methods:
                scores = rng.normal(0.2 * methods.index(method), 1, n)
                scores = (scores > 0.8).astype(float) if metric == "right" else scores
                for i, score in enumerate(scores.tolist()):
                    category = ("colour", "count", None)[i // 2 % 3]
                    rows.append(row(method, score, f"p{i // 2}", i % 2, metric, setting, category))
    return rows


@pytest.fixture(scope="module")
def results() -> dict:
    return summarise(drawn(), NETS)


def columns(metric: str, setting: str, method: str, category=None) -> np.ndarray:
    return np.array(
        [
            each["score"]
            for each in drawn()
            if (each["metric"], each["setting"], each["method"]) == (metric, setting, method)
            and category in (None, each["category"])
        ]
    )


def sides(entry: dict) -> tuple[np.ndarray, np.ndarray]:
    """Both methods' scores as they are compared, taken anew from the rows."""
    names = entry.get("versus", "standard"), entry["method"]
    a, b = (columns(entry["metric"], entry["setting"], name, entry.get("category")) for name in names)
    return tuple(scipy.special.softmax([a, b], axis=0)) if entry["metric"] == "mps" else (a, b)


def test_a_case_counted_by_hand():
    standard, golden = [0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.8]  # won, lost, tied, won
    rows = [row("standard", score, seed=i) for i, score in enumerate(standard)]
    rows += [row("a", score, seed=i) for i, score in enumerate(golden)]
    results = summarise(rows, {})
    (entry,) = results["methods"]
    assert (entry["setting"], entry["method"], entry["metric"], entry["n"], entry["ties"]) == ("s", "a", "hpsv2", 4, 1)
    assert entry["wins"] == 2.5 / 4
    assert entry["mean"] == pytest.approx(0.35)
    assert entry["standard"] == pytest.approx(0.25)
    assert entry["difference"] == pytest.approx(0.1)
    assert entry["p"] == entry["p_holm"] == 1  # 2 of 3 coins: as likely as can be
    assert (results["n"], results["prompts"], results["binary"], results["pairs"]) == (4, 1, [], [])
    assert results["standard"] == [
        {"setting": "s", "metric": "hpsv2", "method": "standard", "n": 4, "mean": pytest.approx(0.25)}
    ]


def every(results: dict) -> list[dict]:
    return results["methods"] + results["pairs"] + results["categories"]


def test_intervals_and_p_are_other_peoples(results):
    assert len(every(results)) == 2 * 3 * (2 + 1 + 2 * 2)
    for entry in every(results):
        a, b = sides(entry)
        above, ties = int((b > a).sum()), int((b == a).sum())
        assert (entry["n"], entry["ties"]) == (len(a), ties)
        assert entry["wins"] == pytest.approx((above + ties / 2) / len(a))
        effect = clustered(np.sign(b - a))
        assert entry["design_effect"] == pytest.approx(effect)
        wilson = proportion_confint((above + ties / 2) / effect, len(a) / effect, method="wilson")
        assert (entry["wins_low"], entry["wins_high"]) == pytest.approx(wilson)
        coins = round(above / effect), round((len(a) - ties) / effect)
        assert entry["p"] == pytest.approx(scipy.stats.binomtest(*coins).pvalue)
        assert entry["mean"] == pytest.approx(b.mean())
        assert entry["difference"] == pytest.approx((b - a).mean())


def clustered(values: np.ndarray) -> float:
    """statsmodels' variance of a mean of two seeds for each prompt, over that of independent values; at least 1."""
    mean = OLS(values, np.ones(len(values)))
    groups = {"groups": np.arange(len(values)) // 2}
    return max(1.0, (mean.fit(cov_type="cluster", cov_kwds=groups).bse[0] / mean.fit().bse[0]) ** 2)


def test_bootstrap_is_scipys_to_its_own_error(results):
    """Whole prompts are drawn, of two seeds each."""
    for entry in results["methods"] + results["pairs"]:
        a, b = sides(entry)
        by_prompt = (b - a).reshape(-1, 2).mean(1)
        expected = scipy.stats.bootstrap((by_prompt,), np.mean, n_resamples=10_000, method="percentile", rng=1)
        spread = by_prompt.std() / np.sqrt(len(by_prompt))
        step = 1 / len(a) if entry["metric"] in results["binary"] else 0  # means of whole numbers lie on a grid
        found = entry["difference_low"], entry["difference_high"]
        assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.12 * spread + step)


def test_p_is_corrected_over_all_that_is_reported(results):
    main = results["methods"] + results["pairs"]
    for family, name in ((main, "methods"), (results["categories"], "categories")):
        assert results["families"][name] == len(family)
        expected = multipletests([each["p"] for each in family], method="holm")[1]
        assert [each["p_holm"] for each in family] == pytest.approx(expected)


def test_means_of_standard(results):
    means = {(each["setting"], each["metric"]): each["mean"] for each in results["standard"]}
    assert means.keys() == {(setting, metric) for setting in "st" for metric in ("hpsv2", "right")}  # MPS has none
    for (setting, metric), mean in means.items():
        assert mean == pytest.approx(columns(metric, setting, "standard").mean())
    for entry in results["methods"]:
        assert entry["standard"] == pytest.approx(sides(entry)[0].mean())


def test_mps_is_a_share_of_two(results):
    entries = [each for each in results["methods"] if each["metric"] == "mps"]
    for each in entries:
        assert each["mean"] + each["standard"] == pytest.approx(1)
    assert len(entries) == 4


def test_nets_meet_each_other(results):
    assert {(each["method"], each["versus"]) for each in results["pairs"]} == {("b", "a")}
    swapped = summarise(drawn(("standard", "b", "a")), {"nets": {"b": {}, "a": {}}, "methods": {"a": "", "b": ""}})
    assert {(each["method"], each["versus"]) for each in swapped["pairs"]} == {("b", "a")}  # the methods' order rules
    assert summarise(drawn(), {})["pairs"] == []  # what is no net is compared with standard alone


def test_binary_metrics_are_found(results):
    assert results["binary"] == ["right"]
    assert all(each["ties"] > each["n"] / 3 for each in results["methods"] if each["metric"] == "right")


def test_categories_hold_their_own_pairs_only(results):
    assert {each["category"] for each in results["categories"]} == {"colour", "count"}
    assert {each["n"] for each in results["categories"]} == {28, 26}


def test_the_order_of_rows_is_nothing(results):
    rows = drawn()
    random.Random(1).shuffle(rows)
    about = NETS | {"settings": {"s": {}, "t": {}}, "methods": {"a": "", "b": ""}}
    about["metrics"] = {metric: {} for metric in ("hpsv2", "right", "mps")}
    shuffled = summarise(rows, about)
    for family in ("methods", "pairs", "standard"):
        for one, other in zip(results[family], shuffled[family], strict=True):
            loose = {"difference_low", "difference_high"}  # resamples follow the order of pairs
            assert {k: v for k, v in other.items() if k not in loose} == pytest.approx(
                {k: v for k, v in one.items() if k not in loose}
            )


def test_items_hold_every_score_and_image():
    rows = [row("standard", 1.0, image="x.png"), row("a", 2.0, image="y.png"), row("a", 3.0, metric="mps")]
    rows += [row("standard", 4.0, metric="mps")]
    (item,) = summarise(rows, {})["items"]
    assert item["scores"] == {"hpsv2": {"standard": 1.0, "a": 2.0}, "mps": {"a": 3.0, "standard": 4.0}}
    assert item["images"] == {"standard": "x.png", "a": "y.png"}


def test_standard_alone_has_means():
    results = summarise([row("standard", 0.5, seed=i) for i in range(3)], {})
    assert (results["standard"][0]["mean"], results["methods"]) == (0.5, [])


def test_a_file_of_results_reads_back(results, tmp_path):
    write_results(tmp_path / "results.json", results)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == results
    assert text.count("\n") > len(every(results))


def test_what_is_not_finite_in_about_becomes_null():
    about = {"diagnostics": {"a": {"prompt dependence": float("nan"), "variance": [1.0, float("inf")]}}}
    results = summarise([row("standard", 0.5)], about)
    assert results["about"]["diagnostics"] == {"a": {"prompt dependence": None, "variance": [1.0, None]}}


def refused(rows: list[dict]) -> str:
    with pytest.raises(InputError) as error:
        summarise(rows, {})
    assert is_one_sentence(str(error.value)), str(error.value)
    return str(error.value)


def test_images_without_a_partner_are_counted_and_named():
    rows = drawn(("standard", "a"), ("hpsv2",), ("s",))
    lost = [each for each in rows if each["method"] == "a" and each["prompt"] == "p7"]
    message = refused([each for each in rows if each not in lost])
    assert message.startswith("2 images")
    assert "a has no hpsv2 score at s for 'p7' (seed 0)" in message
    message = refused([each for each in rows if (each["method"], each["prompt"]) != ("standard", "p7")])
    assert "standard has no hpsv2 score at s for 'p7' (seed 0)" in message
    message = refused([each for each in rows if each["method"] != "standard"])
    assert message.startswith("80 images")
    assert "and 77 more" in message


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), None, "0.3"])
def test_scores_that_are_no_number_name_their_image(score):
    message = refused([row("standard", 0.5), row("a", score, image="images/s/a/p-0.png")])
    assert "images/s/a/p-0.png" in message
    assert message.startswith("1 of 2 scores")


def test_two_scores_of_one_image():
    assert "0.5 and 0.6" in refused([row("standard", 0.5), row("standard", 0.6)])
    assert summarise([row("standard", 0.5), row("standard", 0.5)], {})["n"] == 1  # the same line twice says the same


def test_no_scores():
    assert "no scores" in refused([])
