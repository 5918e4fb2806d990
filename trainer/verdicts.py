"""What figures show and what they do not, in words, made from the figures alone."""

from __future__ import annotations

from collections.abc import Sequence

from .numerals import brief, count, decimals, fixed, listed, p_value, percent, signed
from .results import STANDARD

HIGHER, LOWER = "higher", "lower"
PERHAPS_HIGHER, PERHAPS_LOWER = "perhaps higher", "perhaps lower"  # the interval says so, the corrected p does not
OPEN = "no difference shown"
CONTROL = "wrong-prompt-"  # prefix of the methods whose noise was made for another prompt
LEVEL = 0.05

MARKS = {HIGHER: "▲", PERHAPS_HIGHER: "△", OPEN: "●", PERHAPS_LOWER: "▽", LOWER: "▼"}


def is_binary(results: dict, metric: str) -> bool:
    return metric in results["binary"]


def verdict(results: dict, entry: dict) -> str:
    """One of the five above.

    Of a metric that is 0 or 1 most pairs are ties, which make the interval of the winning rate far too wide: there the
    interval of the mean difference decides.
    """
    if is_binary(results, entry["metric"]):
        low, high, centre = entry["difference_low"], entry["difference_high"], 0
    else:
        low, high, centre = entry["wins_low"], entry["wins_high"], 0.5
    if low <= centre <= high:
        return OPEN
    if entry["p_holm"] < LEVEL:
        return HIGHER if low > centre else LOWER
    return PERHAPS_HIGHER if low > centre else PERHAPS_LOWER


def factor(results: dict, metric: str) -> float:
    return results["about"].get("metrics", {}).get(metric, {}).get("factor", 1)


def label(results: dict, metric: str) -> str:
    """With the factor, for the head of a column."""
    return results["about"].get("metrics", {}).get(metric, {}).get("label", metric)


def title(results: dict, metric: str) -> str:
    """Without the factor, for a sentence."""
    return label(results, metric).removesuffix(f" ×{factor(results, metric):g}")


def digits(results: dict, metric: str) -> int:
    """Decimals of a metric's means everywhere on the page: two digits of the narrowest interval of a difference."""
    entries = [each for each in results["methods"] + results["pairs"] if each["metric"] == metric]
    halves = [(each["difference_high"] - each["difference_low"]) / 2 * factor(results, metric) for each in entries]
    return decimals(min(filter(None, halves), default=0))


def setting_title(results: dict, setting: str) -> str:
    """``DDIM, 10 steps, guidance 5.5, 1024×1024``, or the name itself if nothing more is known."""
    facts = results["about"].get("settings", {}).get(setting, {})
    if not {"sampler", "steps", "cfg", "height", "width"} <= facts.keys():
        return setting
    spacing = [f"{facts['spacing']} spacing"] if facts.get("spacing") else []
    size = f"{facts['width']}×{facts['height']}"
    return ", ".join(
        [facts["sampler"].upper(), count(facts["steps"], "step"), *spacing, f"guidance {facts['cfg']:g}", size]
    )


# -- one method at one setting ----------------------------------------------------------------------------------------


def findings(results: dict, entries: Sequence[dict], versus: str = STANDARD) -> list[str]:
    """Sentences on the comparisons of one method with another at one setting, one entry per metric."""
    by_verdict: dict[str, list[dict]] = {}
    for entry in entries:
        by_verdict.setdefault(verdict(results, entry), []).append(entry)
    family = results["families"]["methods"]
    sentences = []
    for kind in (HIGHER, LOWER):
        if kind in by_verdict:
            sentences.append(f"Scored {kind} than {versus} in {cited(results, by_verdict[kind])}.")
    for kind, side in ((PERHAPS_HIGHER, "above"), (PERHAPS_LOWER, "below")):
        if kind in by_verdict:
            ps = listed([f"p = {p_value(each['p_holm'])}".replace("= <", "< ") for each in by_verdict[kind]])
            sentences.append(
                f"In {cited(results, by_verdict[kind])} the 95 % interval lies {side} no difference, but one such in "
                f"{count(family, 'comparison')} is no surprise ({ps} after correction): weak evidence."
            )
    if OPEN in by_verdict:
        halves = [each for each in by_verdict[OPEN] if not is_binary(results, each["metric"])]
        zeros = [each for each in by_verdict[OPEN] if is_binary(results, each["metric"])]
        if halves:
            sentences.append(
                f"In {cited(results, halves)} the interval contains one half: this run shows no difference."
            )
        if zeros:
            sentences.append(f"In {cited(results, zeros)} the interval contains zero: this run shows no difference.")
    return sentences + [sentence for entry in entries for sentence in disagreement(results, entry)]


def cited(results: dict, entries: Sequence[dict]) -> str:
    return listed([f"{title(results, each['metric'])} ({figures(results, each)})" for each in entries])


def figures(results: dict, entry: dict) -> str:
    """A comparison's figures within a sentence."""
    if is_binary(results, entry["metric"]):
        up = round(entry["wins"] * entry["n"] - entry["ties"] / 2)
        down = entry["n"] - entry["ties"] - up
        low, high = (fixed(100 * entry[f"difference_{end}"], 1) for end in ("low", "high"))
        other = entry.get("standard", entry.get("versus_mean"))
        return (
            f"{percent(entry['mean'])} instead of {percent(other)}; difference {signed(100 * entry['difference'], 1)} "
            f"points, 95 % interval {low} to {high}; {brief(up)} pairs up, {brief(down)} down, {brief(entry['ties'])} equal"
        )
    low, high = fixed(100 * entry["wins_low"], 1), percent(entry["wins_high"])
    ties = f", {count(entry['ties'], 'tie')} counted half" if entry["ties"] else ""
    return f"won {percent(entry['wins'])} of {count(entry['n'], 'pair')}{ties}; 95 % interval {low} to {high}"


def disagreement(results: dict, entry: dict) -> list[str]:
    """Where how often and how much do not say the same."""
    if is_binary(results, entry["metric"]):
        return []
    low, high, kind = entry["difference_low"], entry["difference_high"], verdict(results, entry)
    scale, places = factor(results, entry["metric"]), digits(results, entry["metric"])
    mean = (
        f"{signed(scale * entry['difference'], places)}, {fixed(scale * low, places)} to {fixed(scale * high, places)}"
    )
    name = title(results, entry["metric"])
    if kind == OPEN and (low > 0 or high < 0):
        return [f"The mean difference in {name} alone ({mean}) does exclude zero: few pairs with large differences."]
    if kind in (HIGHER, PERHAPS_HIGHER) and low <= 0 or kind in (LOWER, PERHAPS_LOWER) and high >= 0:
        return [f"The mean difference in {name} ({mean}) does not exclude zero: how often is shown, how much is not."]
    return []


def on_control(results: dict, control: dict, own: dict) -> str:
    """What a control says of its method, both compared with standard in one metric."""
    name = own["method"]
    if verdict(results, own) != HIGHER:
        return f"{name} itself shows no gain here that the control could explain."
    return {
        LOWER: f"With another prompt's noise the gain of {name} turns into a loss: it depends on the prompt.",
        OPEN: f"With another prompt's noise no gain is shown: that of {name} seems to depend on the prompt.",
    }.get(
        verdict(results, control),
        f"Another prompt's noise gains too: part of the gain of {name} has nothing to do with the prompt.",
    )


# -- the whole run ----------------------------------------------------------------------------------------------------


def limits(results: dict) -> list[str]:
    """What the figures do not show, a sentence or two each."""
    entries = results["methods"] + results["pairs"]
    metrics = list(dict.fromkeys(each["metric"] for each in results["standard"] + entries))
    sentences = [
        f"The scores come from programs ({listed([title(results, metric) for metric in metrics])}): no person has compared "
        "these pictures. Look at the pairs below, the losses too."
    ]
    rates = [each for each in entries if not is_binary(results, each["metric"])]
    if rates:
        widest = max((each["wins_high"] - each["wins_low"]) / 2 for each in rates)
        sentences.append(
            f"With {count(min(each['n'] for each in rates), 'pair')} an interval reaches up to {100 * widest:.1f} points to "
            "either side: a smaller difference may exist and not be seen here. “No difference shown” is not “equal”."
        )
    if results["families"]["methods"] > 1:
        sentences.append(
            f"{count(results['families']['methods'], 'comparison')} were made. The intervals are not corrected for that; "
            "the p values are (Holm), over all of them."
        )
    if results["n"] > results["prompts"]:
        sentences.append(
            f"{count(results['n'], 'pair')} come from {count(results['prompts'], 'prompt')}. The intervals take pairs as "
            "independent; those of one prompt are related, so for new prompts they are somewhat too narrow."
        )
    methods = {each["method"] for each in results["methods"]}
    if methods and not any(method.startswith(CONTROL) for method in methods):
        sentences.append(
            "No control with another prompt's noise was run: whether a gain depends on the prompt stays open."
        )
    sentences.append("All this holds for this base model, these settings, prompts and seeds. Others were not tried.")
    return sentences + list(results["about"].get("missing", []))
