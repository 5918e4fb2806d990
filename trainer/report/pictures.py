"""The section with pairs of pictures: largest gains, the middle, largest losses."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from trainer.evaluation.items import STANDARD
from trainer.report import labels
from trainer.report.entries import entries_of, methods_of, settings_of
from trainer.report.formatting import count, fixed, signed
from trainer.report.gallery import ALL, Group, Pair, choose, pair_grid, thumbnail
from trainer.report.page import Section

PAIRS_PER_PART = 8  # gains, middle, losses: of one method at one setting
BUDGET = 12_000_000  # bytes that all pictures within the page may take


def pictures(out: Path, results: dict) -> Section | None:
    """Pairs of pictures, standard and method, by their gain in the first metric; of the nets if there are any."""
    nets = results["about"].get("nets", {})
    wanted = []
    for setting in settings_of(results):
        here = [each for each in results["items"] if each["setting"] == setting and STANDARD in each["images"]]
        methods = methods_of(results, setting)
        for method in [method for method in methods if method in nets] or methods:
            metric = next(each["metric"] for each in entries_of(results, setting, method))
            pairs = [each for each in here if method in each["images"] and method in each["scores"].get(metric, {})]
            if pairs:
                wanted.append((setting, method, metric, pairs))
    if not wanted:
        return None
    size = sum(
        len(picture.source)
        for s, m, k, pairs in wanted
        for picture in pair_of(out, results, pairs[0], m, k, ALL).pictures
    )
    each = max(1, min(PAIRS_PER_PART, BUDGET // (3 * size)))
    groups = []
    with tqdm(total=sum(min(3 * each, len(pairs)) for *_, pairs in wanted), desc="pictures", leave=False) as progress:
        for setting, method, metric, pairs in wanted:
            chosen = choose([gain(pair, method, metric) for pair in pairs], each)
            shown = []
            for place, indices in chosen.items():
                for i in indices:
                    shown.append(pair_of(out, results, pairs[i], method, metric, place))
                    progress.update()
            name = labels.title(results, metric)
            if ALL in chosen:
                note = f"All {count(len(pairs), 'pair')}, from the largest gain in {name} to the largest loss."
            else:
                note = (
                    f"{len(shown)} of {count(len(pairs), 'pair')}, chosen by the gain in {name} alone: {each} largest "
                    f"gains, {each} around the median, {each} largest losses. The others are in the folder images."
                )
            title = f"{method} · {labels.setting_title(results, setting)}"
            groups.append(Group(title, note, tuple(shown)))
    return Section("Pictures", pair_grid(groups), "See report.html and the folder images.\n")


def gain(item: dict, method: str, metric: str) -> float:
    scores = item["scores"][metric]
    return scores[method] - scores[STANDARD]


def pair_of(out: Path, results: dict, item: dict, method: str, metric: str, place: str) -> Pair:
    scale = labels.factor(results, metric)
    places = labels.digits(results, metric)
    shown = tuple(
        thumbnail(out / item["images"][name], name, fixed(scale * item["scores"][metric][name], places))
        for name in (STANDARD, method)
    )
    change = scale * gain(item, method, metric)
    return Pair(item["prompt"], item["seed"], change, signed(change, places), shown, item["category"], place)
