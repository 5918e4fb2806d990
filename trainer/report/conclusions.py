"""What figures show and what they do not, in words, made from the figures alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from trainer.evaluation.equal_cost import golden_methods, selecting_metrics
from trainer.evaluation.items import STANDARD
from trainer.evaluation.methods import CONTROL
from trainer.report import labels
from trainer.report.formatting import THIN, brief, count, fixed, interval, listed, p_value, percent, signed

HIGHER, LOWER = "higher", "lower"
PERHAPS_HIGHER, PERHAPS_LOWER = "perhaps higher", "perhaps lower"  # the interval says so, the corrected p does not
OPEN = "no difference shown"
LEVEL = 0.05
INTERVAL = f"95{THIN}% interval"

MARKS = {HIGHER: "▲", PERHAPS_HIGHER: "△", OPEN: "●", PERHAPS_LOWER: "▽", LOWER: "▼"}


def conclusion(results: dict, entry: dict) -> str:
    """One of the five above.

    Of a metric that is 0 or 1 most pairs are ties, which make the interval of the winning rate far too wide: there the
    interval of the mean difference decides. Ends count as the page shows them, to a tenth of a percent: 50.0 is half.
    """
    if labels.is_binary(results, entry["metric"]):
        low, high, centre = entry["difference_low"], entry["difference_high"], 0
    else:
        low, high, centre = entry["wins_low"], entry["wins_high"], 0.5
    low, high = round(low, 3), round(high, 3)
    if low <= centre <= high:
        return OPEN
    if entry["p_holm"] < LEVEL:
        return HIGHER if low > centre else LOWER
    return PERHAPS_HIGHER if low > centre else PERHAPS_LOWER


# -- one method at one setting ----------------------------------------------------------------------------------------


def headline(results: dict, entries: Sequence[dict], versus: str = STANDARD) -> str:
    """One sentence on the comparisons of one method with another at one setting, an entry per metric."""
    phrases = {
        HIGHER: f"higher than {versus} in",
        LOWER: f"lower than {versus} in",
        PERHAPS_HIGHER: "weak evidence for higher in",
        PERHAPS_LOWER: "weak evidence for lower in",
        OPEN: "no difference shown in",
    }
    parts = []
    for kind, phrase in phrases.items():
        metrics = [labels.title(results, each["metric"]) for each in entries if conclusion(results, each) == kind]
        if metrics:
            parts.append(f"{phrase} {listed(metrics)}")
    words = "; ".join(parts)
    return f"{words[:1].upper()}{words[1:]}."


def detail(results: dict, entry: dict) -> str:
    """The figures behind one part of :func:`headline`, and what they mean."""
    kind = conclusion(results, entry)
    none = "zero" if labels.is_binary(results, entry["metric"]) else "one half"
    contains = f", which contains {none}" if kind == OPEN else ""
    sentences = [f"{labels.title(results, entry['metric'])}: {figures(results, entry)}{contains}."]
    if kind in (PERHAPS_HIGHER, PERHAPS_LOWER):
        sentences.append(
            f"That excludes {none}, but one such among {count(results['families']['methods'], 'comparison')} is no "
            f"surprise: p is {p_value(entry['p_holm'])} after correction."
        )
    return " ".join(sentences + disagreement(results, entry))


def figures(results: dict, entry: dict) -> str:
    """A comparison's figures within a sentence."""
    if labels.is_binary(results, entry["metric"]):
        up = round(entry["wins"] * entry["n"] - entry["ties"] / 2)
        down = entry["n"] - entry["ties"] - up
        low, high = (fixed(100 * entry[f"difference_{end}"], 1) for end in ("low", "high"))
        other = entry.get("standard", entry.get("versus_mean"))
        return (
            f"{percent(entry['mean'])} instead of {percent(other)} ({count(up, 'pair')} up, {brief(down)} down, "
            f"{brief(entry['ties'])} equal), {signed(100 * entry['difference'], 1)} points, {INTERVAL} {low} to {high}"
        )
    low, high = fixed(100 * entry["wins_low"], 1), percent(entry["wins_high"])
    ties = f", {count(entry['ties'], 'tie')} counted half" if entry["ties"] else ""
    return f"won {percent(entry['wins'])} of {count(entry['n'], 'pair')}{ties}, {INTERVAL} {low} to {high}"


def disagreement(results: dict, entry: dict) -> list[str]:
    """Where how often and how much do not say the same."""
    if labels.is_binary(results, entry["metric"]):
        return []
    low, high, kind = entry["difference_low"], entry["difference_high"], conclusion(results, entry)
    scale, places = labels.factor(results, entry["metric"]), labels.digits(results, entry["metric"])
    mean = f"The mean difference, {signed(scale * entry['difference'], places)} {interval(low, high, places, scale)},"
    if kind == OPEN and (low > 0 or high < 0):
        return [f"{mean} does exclude zero."]
    if (kind in (HIGHER, PERHAPS_HIGHER) and low <= 0) or (kind in (LOWER, PERHAPS_LOWER) and high >= 0):
        return [f"{mean} does not exclude zero: how often is shown, by how much is not."]
    return []


def on_control(results: dict, control: dict, own: dict) -> str:
    """What a control says of its method, both compared with standard in one metric."""
    name, found = own["method"], conclusion(results, own)
    if found == PERHAPS_HIGHER:
        return f"The gain of {name} itself is too uncertain for the control to say much."
    if found != HIGHER:
        return f"{name} itself shows no gain here that the control could explain."
    return {
        LOWER: f"With another prompt's noise the gain of {name} turns into a loss: it depends on the prompt.",
        PERHAPS_LOWER: f"With another prompt's noise it is perhaps a loss: the gain of {name} depends on the prompt.",
        OPEN: f"With another prompt's noise no gain is shown, nor that it is smaller than that of {name}.",
        PERHAPS_HIGHER: f"Another prompt's noise perhaps gains too: whether {name} needs the prompt stays open.",
        HIGHER: f"Another prompt's noise gains too: part of the gain of {name} has nothing to do with the prompt.",
    }[conclusion(results, control)]


# -- several methods at one setting ------------------------------------------------------------------------------------


def best_at_equal_cost(results: dict, entry: dict) -> str:
    """One sentence on an entry of :func:`trainer.evaluation.equal_cost.equal_cost`."""
    setting, metric, ours, best = (entry[name] for name in ("setting", "metric", "method", "best"))
    name = labels.title(results, metric)
    limit = f"about as many predictions as {ours} ({brief(entry['predictions'])} an image) or fewer"
    golden = golden_methods(results["about"], entry["among"])
    if best in golden and set(entry["among"]) <= {STANDARD, *golden}:
        beside = "standard" if golden == [best] else "standard and golden noise"
        return (
            f"Beside {beside} no method was run that takes {limit}: whether they are best spent on {best} stays open "
            f"({name}: {_over_standard(results, setting, metric, best)})."
        )
    spent = labels.spent(results, setting, best)
    words = f"{best} ({spent}) is best in {name} of the {len(entry['among'])} methods that take {limit}"
    if best != STANDARD:
        words += f", {_over_standard(results, setting, metric, best)}"
    shown = "" if entry["lead_low"] > 0 else ", which shows no difference"
    return f"{words}; its lead over {entry['versus']} is {labels.gain(results, entry, 'lead')}{shown}."


def _over_standard(results: dict, setting: str, metric: str, method: str) -> str:
    (found,) = (
        each
        for each in results["methods"]
        if (each["setting"], each["metric"], each["method"]) == (setting, metric, method)
    )
    return f"{labels.gain(results, found)} over standard"


def verdict(results: dict) -> list[str]:
    """What the page begins with: for every setting the best method at the cost of the golden noise that gains most."""
    sentences, settings = [], list(dict.fromkeys(each["setting"] for each in results["equal_cost"]))
    for setting in settings:
        here = [each for each in results["equal_cost"] if each["setting"] == setting]
        gains = {
            each["method"]: each["difference"]
            for each in results["methods"]
            if (each["setting"], each["metric"]) == (setting, here[0]["metric"])
        }
        sentence = best_at_equal_cost(results, max(here, key=lambda each: gains[each["method"]]))
        sentences.append(f"{labels.setting_title(results, setting)}: {sentence}" if len(settings) > 1 else sentence)
    return sentences


def parting(results: dict) -> list[str]:
    """Which metrics selected and which report, and on which methods they do not say the same."""
    about = results["about"]
    metrics = list(dict.fromkeys(each["metric"] for each in results["methods"]))
    selecting = [each for each in selecting_metrics(about) if each in metrics]
    reporting = [each for each in metrics if each not in selecting]
    if not selecting:
        return []
    names = listed([labels.title(results, each) for each in selecting])
    chose = (
        f"{names} had a hand in what is compared: noises, pairs or settings were chosen by it, or nets trained on it"
    )
    if not reporting:
        return [f"{chose}, and no other metric was run: the gains shown may be flattery."]
    report = listed([labels.title(results, each) for each in reporting])
    sentences = [
        f"{chose}; {report} had none, and what is concluded here rests on {'it' if len(reporting) == 1 else 'them'}."
    ]
    found = {
        (each["setting"], each["method"], each["metric"]): conclusion(results, each) for each in results["methods"]
    }
    several = len({setting for setting, *_ in found}) > 1
    for setting, method in dict.fromkeys((setting, method) for setting, method, _ in found):
        for one, other in itertools.product(selecting, reporting):
            kinds = found.get((setting, method, one)), found.get((setting, method, other))
            if None in kinds or not parted(*kinds):
                continue
            where = f" ({labels.setting_title(results, setting)})" if several else ""
            said = [f"{labels.title(results, metric)} {kind}" for metric, kind in zip((one, other), kinds, strict=True)]
            sentences.append(f"They part on {method}{where}: {said[0]}, {said[1]}.")
    if len(sentences) == 1:
        sentences.append("They part on no method.")
    return sentences


def parted(one: str, other: str) -> bool:
    """Whether one conclusion is significant and the other is not, or points the other way."""
    return one != other and (HIGHER in (one, other) or LOWER in (one, other))


# -- the whole run ----------------------------------------------------------------------------------------------------


def limits(results: dict) -> list[str]:
    """What the figures do not show, a sentence or two each."""
    entries = results["methods"] + results["pairs"]
    metrics = list(dict.fromkeys(each["metric"] for each in results["standard"] + entries))
    names = listed([labels.title(results, metric) for metric in metrics])
    sentences = [
        f"The scores come from programs ({names}): no person has compared these pictures. Look at the pairs "
        "below, the losses too."
    ]
    rates = [each for each in entries if not labels.is_binary(results, each["metric"])]
    if rates:
        widest = max((each["wins_high"] - each["wins_low"]) / 2 for each in rates)
        sentences.append(
            f"With {count(min(each['n'] for each in rates), 'pair')} an interval reaches up to {100 * widest:.1f} "
            "points to either side: a smaller difference may exist unseen. “No difference shown” is not “equal”."
        )
    if results["families"]["methods"] > 1:
        sentences.append(
            f"{count(results['families']['methods'], 'comparison')} were made. The intervals are not corrected for "
            "that; the p values are (Holm), over all of them."
        )
    if results["n"] > results["prompts"] == 1:
        sentences.append("All pairs are of one prompt: what holds for it may not hold for others.")
    elif results["n"] > results["prompts"]:
        sentences.append(
            f"{count(results['n'], 'pair')} come from {count(results['prompts'], 'prompt')}. Those of one prompt are "
            "related, for which intervals and p allow; with few prompts that allowance is itself uncertain."
        )
    if "diversity" in results["about"] and not results["about"]["diversity"]:
        sentences.append(
            "Each prompt has one seed: whether a method makes the pictures of a prompt more alike was not measured."
        )
    methods = {each["method"] for each in results["methods"]}
    if methods and not any(method.startswith(CONTROL) for method in methods):
        sentences.append(
            "No control with another prompt's noise was run: whether a gain depends on the prompt stays open."
        )
    sentences.append("All this holds for this base model, these settings, prompts and seeds. Others were not tried.")
    return sentences + list(results["about"].get("missing", []))
