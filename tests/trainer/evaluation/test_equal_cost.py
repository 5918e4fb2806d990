"""The best method at equal cost, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.trainer.evaluation.test_results import row
from trainer.evaluation.equal_cost import selecting_metrics
from trainer.evaluation.results import summarise
from trainer.report import conclusions

GAINS = {"standard": 0.0, "net": 0.5, "inversion": 2.0, "cfg-3-first-1": 1.0, "cfg-3": 1.5, "best-of-4-judge": 9.0}
PREDICTIONS = {"standard": 10, "net": 10, "inversion": 22, "cfg-3-first-1": 11, "cfg-3": 20, "best-of-4-judge": 40}
CONTROL = "wrong-prompt-net"


def run(gains: dict[str, float], metrics=("judge", "other"), predictions=PREDICTIONS, **more) -> dict:
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 1, 60)
    rows = [
        row(method, luck[i] + gain + 0.01 * rng.normal(), f"p{i // 2}", i % 2, metric)
        for metric in metrics
        for method, gain in gains.items()
        for i in range(60)
    ]
    cost = [
        {"setting": "s", "method": method, "device": "cpu", "predictions": float(predictions[method]), "seconds": 0.1}
        for method in gains
        if method in predictions
    ]
    about = {"methods": dict.fromkeys(gains, ""), "metrics": {each: {} for each in metrics}}
    return summarise(rows, {"nets": {"net": {}}, "cost": cost} | about | more)


def test_the_best_that_costs_no_more():
    results = run(GAINS | {CONTROL: 8.0}, predictions=PREDICTIONS | {CONTROL: 10})
    assert selecting_metrics(results["about"]) == ["judge"]
    net, inversion = sorted(results["equal_cost"], key=lambda each: each["predictions"])
    assert (net["method"], net["metric"], net["best"], net["versus"]) == ("net", "other", "cfg-3-first-1", "net")
    assert net["among"] == ["cfg-3-first-1", "net", "standard"]  # 11 predictions are about 10; no control
    assert net["lead"] == pytest.approx(0.5, abs=0.01)
    assert 0.48 < net["lead_low"] <= net["lead"] <= net["lead_high"] < 0.52
    assert (inversion["method"], inversion["best"], inversion["versus"]) == ("inversion", "inversion", "cfg-3")
    assert inversion["among"] == ["inversion", "cfg-3", "cfg-3-first-1", "net", "standard"]
    (sentence,) = conclusions.verdict(results)
    assert sentence.startswith("inversion (22 predictions, 0.10\u202fs) is best in other of the 5 methods")
    assert "its lead over cfg-3 is +0.4997 [0.4960, 0.5035]." in sentence
    assert "no difference" not in sentence


def test_a_metric_does_not_judge_what_it_chose():
    results = run(GAINS, metrics=("judge",), predictions=dict.fromkeys(GAINS, 40))
    assert all(each["metric"] == "judge" and "best-of-4-judge" not in each["among"] for each in results["equal_cost"])
    results = run(GAINS, metrics=("judge", "other"), predictions=dict.fromkeys(GAINS, 40))
    assert all(each["metric"] == "other" and each["best"] == "best-of-4-judge" for each in results["equal_cost"])


def test_a_lead_that_is_not_shown():
    (entry,) = (results := run({"standard": 0.0, "net": 0.0, "cfg-3-first-1": 1e-4}))["equal_cost"]
    assert entry["lead_low"] <= 0 <= entry["lead_high"]
    assert conclusions.verdict(results)[0].endswith("which shows no difference.")


def test_a_net_that_nothing_was_run_beside():
    results = run({"standard": 0.0, "net": 0.5, "cfg-3": 1.5})
    (sentence,) = conclusions.verdict(results)
    assert sentence.startswith("Beside standard no method was run that takes about as many predictions as net (10 an ")


def test_golden_noise_is_not_called_best_of_golden_noise():
    (sentence,) = conclusions.verdict(run({"standard": 0.0, "net": 0.5, "inversion": 2.0}))
    assert sentence.startswith("Beside standard and golden noise no method was run that takes")
    assert "whether they are best spent on inversion stays open (judge: +1.9" in sentence


def test_standard_is_best_where_golden_noise_loses_to_it_alone():
    (sentence,) = conclusions.verdict(run({"standard": 0.0, "net": -0.5}))
    assert sentence.startswith("standard (10 predictions, 0.10\u202fs) is best in judge of the 2 methods that take")
    assert "its lead over net is +0." in sentence


@pytest.mark.parametrize("about", [{"cost": []}, {"nets": {}}])
def test_where_nothing_was_counted_or_nothing_is_ours_no_word_is_said(about):
    results = run({"standard": 0.0, "net": 0.5, "cfg-3": 1.5}, **about)
    assert results["equal_cost"] == conclusions.verdict(results) == []


def test_who_selected_is_read_from_nets_methods_and_what_the_run_says():
    nets = {"net": {"npnet.selection": json.dumps({"scorers": ["judge"]})}, "old": {}, "none": None}
    nets |= {"rewarded": {"npnet.reward": json.dumps({"scorers": {"fourth": 1.0}})}, "foreign": {"npnet.reward": "[1"}}
    nets |= {"odd": {"npnet.selection": "[]", "npnet.reward": '{"scorers": 3}'}}
    metrics = {"other": {}, "judge": {}, "third": {}, "fourth": {}}
    assert selecting_metrics({"nets": nets, "metrics": metrics}) == ["judge", "fourth"]
    assert selecting_metrics({"nets": nets, "metrics": metrics, "selecting": ["third"]}) == ["judge", "third", "fourth"]
    assert selecting_metrics({"methods": {"best-of-2-other": ""}, "metrics": metrics}) == ["other"]
    assert selecting_metrics({"nets": {"net": {"npnet.selection": json.dumps({"scorers": ["none"]})}}}) == []
