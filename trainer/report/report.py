"""Figures of a run → ``report.html``, one file that needs nothing else; ``report.md``; ``results.json``.

Each section below is made from what :func:`trainer.evaluation.results.summarise` returns; the pieces they are made of
(:mod:`trainer.report.page`, :mod:`trainer.report.charts`, :mod:`trainer.report.gallery`) are for other pages too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from trainer.evaluation.results import STANDARD, in_order, write_results
from trainer.report import verdicts
from trainer.report.charts import Bar, difference_bars, paired_scatter, reach_of, win_bars
from trainer.report.formatting import brief, count, decimals, fixed, interval, p_value, percent, signed
from trainer.report.gallery import ALL, Group, Pair, choose, pair_grid, thumbnail
from trainer.report.page import Block, Section, block, macros, markdown_page, page, section, table
from trainer.report.verdicts import CONTROL, HIGHER, LOWER, MARKS, OPEN, PERHAPS_HIGHER, PERHAPS_LOWER, verdict

TITLE = "Golden noise against standard noise"
PAIRS_PER_PART = 8  # gains, middle, losses: of one method at one setting
BUDGET = 12_000_000  # bytes that all pictures within the page may take

CLASSES = {HIGHER: "up", PERHAPS_HIGHER: "up", OPEN: "open", PERHAPS_LOWER: "down", LOWER: "down"}


def write_report(out: Path, results: dict, extra_sections: Sequence[Section] = ()) -> None:
    """Write ``results.json``, ``report.md`` and ``report.html`` into ``out``, where the images are.

    Args:
        results: of :func:`trainer.evaluation.results.summarise`; ``about`` may have a ``title`` and an
            ``introduction``, a list of paragraphs.
        extra_sections: stand behind the pictures.

    Raises:
        InputError: for an image that the scores name and nobody can read.
    """
    before, after = report_sections(out, results)
    sections = [*before, *extra_sections, *after]
    title, facts = results["about"].get("title", TITLE), subtitle(results)
    write_results(out / "results.json", results)
    (out / "report.html").write_text(page(title, sections, facts), encoding="utf-8")
    (out / "report.md").write_text(markdown_page(title, sections, facts), encoding="utf-8")


def report_sections(out: Path, results: dict) -> tuple[list[Section], list[Section]]:
    """What every report has: the sections up to the pictures, and those behind them. Ones with nothing to say are left
    out."""
    before = [summary(results), scores(results), win_rates(results), scatters(results), head_to_head(results)]
    before += [by_category(results), pictures(out, results)]
    after = [cost(results), diagnostics(results), comparisons(results), provenance(results)]
    return [each for each in before if each], [each for each in after if each]


def subtitle(results: dict) -> str:
    settings = settings_of(results)
    parts = [f"{count(results['n'], 'pair')} of {count(results['prompts'], 'prompt')}"]
    parts += [verdicts.setting_title(results, settings[0]) if len(settings) == 1 else count(len(settings), "setting")]
    if base := results["about"].get("base_model"):
        parts.append(Path(base).name or base)
    return " · ".join(parts)


# -- what is compared -------------------------------------------------------------------------------------------------


def settings_of(results: dict) -> list[str]:
    return in_order((), (each["setting"] for each in results["standard"] + results["methods"]))


def metrics_of(results: dict) -> list[str]:
    named = results["about"].get("metrics", ())
    return in_order(named, (each["metric"] for each in results["standard"] + results["methods"]))


def methods_of(results: dict, setting: str) -> list[str]:
    """Without standard."""
    return in_order((), (each["method"] for each in results["methods"] if each["setting"] == setting))


def entries_of(results: dict, setting: str, method: str | None = None, metric: str | None = None) -> list[dict]:
    return [
        each
        for each in results["methods"]
        if each["setting"] == setting and method in (None, each["method"]) and metric in (None, each["metric"])
    ]


# -- in words ---------------------------------------------------------------------------------------------------------


def summary(results: dict) -> Section:
    """What was compared, what it shows and what not, in words that follow from the figures."""
    metric = metrics_of(results)[0]
    name, unit = verdicts.title(results, metric), chart_unit(results, metric)
    introduction = [*results["about"].get("introduction", []), opening(results)]
    parts = [("", [block("paragraph", each) for each in introduction])]
    reaches = reaches_of(results, results["methods"])
    for setting in settings_of(results):
        blocks = []
        if entries := entries_of(results, setting, metric=metric):
            blocks.append(chart(results, entries, [each["method"] for each in entries], reaches, f"{name}, {unit}"))
        for method in methods_of(results, setting):
            more = about_control(results, setting, method, metric)
            blocks.append(finding(results, method, entries_of(results, setting, method), more=more))
        parts.append((verdicts.setting_title(results, setting), blocks))
    legend = ", ".join(f"{mark} {kind}" for kind, mark in MARKS.items())
    parts[-1][1].append(Block(macros("parts.html").note(f"Marks are for {name}: {legend}.")))
    parts.append(("What the figures do not show", [block("bullets", verdicts.limits(results))]))
    return section("What this run shows", parts)


def opening(results: dict) -> str:
    """What was compared with what."""
    return (
        f"Every method drew the same {count(results['prompts'], 'prompt')} from the same seeds, "
        f"{count(results['n'], 'picture')} at a setting; only the noise that a picture starts from differs. Each is "
        "compared with the standard picture of its own prompt and seed. The winning rate is the share of these pairs "
        "in which it scores higher, ties counted half: one half is what chance gives."
    )


def about_control(results: dict, setting: str, method: str, metric: str) -> list[str]:
    """What a control says of the method whose control it is."""
    mine = entries_of(results, setting, method, metric)
    own = entries_of(results, setting, method.removeprefix(CONTROL), metric)
    return [verdicts.on_control(results, mine[0], own[0])] if method.startswith(CONTROL) and mine and own else []


def finding(
    results: dict, name: str, entries: Sequence[dict], versus: str = STANDARD, more: Sequence[str] = ()
) -> Block:
    """The comparisons of one method in words: a mark for the first, a sentence, and the figures in small type."""
    kind, words = verdict(results, entries[0]), verdicts.headline(results, entries, versus)
    details = [*(verdicts.detail(results, each) for each in entries), *more]
    return block("finding", name, kind, MARKS[kind], CLASSES[kind], words, details)


# -- tables and charts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A figure, what it is worth beside standard, and which way that points (a CSS class)."""

    value: str
    versus: str = ""
    side: str = ""


def rate(results: dict, entry: dict) -> Cell:
    """A comparison as a cell: the mean, and the winning rate with its interval; of a binary metric, the difference."""
    kind = verdict(results, entry)
    if verdicts.is_binary(results, entry["metric"]):
        low, high = entry["difference_low"], entry["difference_high"]
        mean, versus = percent(entry["mean"]), f"{signed(100 * entry['difference'], 1)} {interval(low, high, 1, 100)}"
    else:
        scale, places = verdicts.factor(results, entry["metric"]), verdicts.digits(results, entry["metric"])
        mean = fixed(scale * entry["mean"], places)
        versus = f"{percent(entry['wins'])} {interval(entry['wins_low'], entry['wins_high'], 1, 100)}"
    return Cell(mean, f"{MARKS[kind]} {versus}", CLASSES[kind])


def scores(results: dict) -> Section:
    """A table like the paper's table 2 for every setting: methods by metrics."""
    metrics, fid = metrics_of(results), results["about"].get("fid", {})
    parts = []
    for setting in settings_of(results):
        distances = fid.get(setting, {})
        head = ["method", *(verdicts.label(results, metric) for metric in metrics), *(["FID ↓"] if distances else [])]
        rows = []
        for method in [STANDARD, *methods_of(results, setting)]:
            row: list[object] = [method]
            for metric in metrics:
                if method == STANDARD:
                    row += [baseline(results, setting, metric)]
                else:
                    row += [rate(results, each) for each in entries_of(results, setting, method, metric)] or [Cell("–")]
            if distances:
                row.append(Cell(fixed(distances[method], 2) if method in distances else "–"))
            rows.append(row)
        parts.append((verdicts.setting_title(results, setting), [table(head, rows)]))
    notes = ["Mean score; under it the winning rate against standard in percent, with its 95 % interval."]
    if results["binary"]:
        names = ", ".join(verdicts.title(results, metric) for metric in results["binary"])
        notes.append(f"{names} is 0 or 1 for a picture: the share, and under it the difference in points.")
    if fid:
        notes.append(
            f"FID is against {results['about'].get('fid_reference', 'a folder of pictures')}; with few images it is "
            "too high, so compare it within this table only."
        )
    if "mps" in metrics:
        notes.append("MPS compares: the softmax of a pair's two scores, so standard has none of its own.")
    return section("Scores", parts, " ".join(notes))


def baseline(results: dict, setting: str, metric: str) -> Cell:
    """Standard's mean; none of a pairwise metric."""
    means = [each["mean"] for each in results["standard"] if (each["setting"], each["metric"]) == (setting, metric)]
    if not means:
        return Cell("–")
    if verdicts.is_binary(results, metric):
        return Cell(percent(means[0]))
    return Cell(fixed(verdicts.factor(results, metric) * means[0], verdicts.digits(results, metric)))


def bar(results: dict, entry: dict, name: str = "") -> Bar:
    """A comparison as a bar: of the winning rate, or of the difference if the metric is binary."""
    kind = "difference" if verdicts.is_binary(results, entry["metric"]) else "wins"
    cell = rate(results, entry)
    return Bar(
        name,
        entry[kind],
        round(entry[f"{kind}_low"], 3),  # as verdict() rounds
        round(entry[f"{kind}_high"], 3),
        cell.versus,
        cell.side,
        faint=verdict(results, entry) in (PERHAPS_HIGHER, PERHAPS_LOWER),
    )


def chart(
    results: dict, entries: Sequence[dict], names: Sequence[str], reaches: dict[bool, float], heading: str
) -> Block:
    """Comparisons in one metric, as bars under a heading."""
    binary = verdicts.is_binary(results, entries[0]["metric"])
    bars = [bar(results, entry, name) for entry, name in zip(entries, names, strict=True)]
    drawn = (difference_bars if binary else win_bars)(bars, reach=reaches[binary])
    return Block(macros("charts.html").headed(heading, drawn))


def chart_unit(results: dict, metric: str) -> str:
    return "difference in percentage points" if verdicts.is_binary(results, metric) else "winning rate"


def reaches_of(results: dict, entries: Sequence[dict]) -> dict[bool, float]:
    """How far the axes go that all charts of one kind share: binary metrics or not."""
    return {
        binary: reach_of(
            [bar(results, each) for each in entries if verdicts.is_binary(results, each["metric"]) == binary],
            0.0 if binary else 0.5,
        )
        for binary in (False, True)
    }


def win_rates(results: dict) -> Section | None:
    """Charts of the metrics but the first, which is in the summary."""
    reaches, parts = reaches_of(results, results["methods"]), []
    for setting in settings_of(results):
        drawn = []
        for metric in metrics_of(results)[1:]:
            here = entries_of(results, setting, metric=metric)
            heading = f"{verdicts.title(results, metric)}, {chart_unit(results, metric)}"
            if here:
                drawn.append(chart(results, here, [each["method"] for each in here], reaches, heading))
        if drawn:
            drawn.append(Block(markdown="The figures are in the table above.\n"))
            parts.append((verdicts.setting_title(results, setting), drawn))
    note = (
        "Bars start at the line of no difference from standard; thin lines are 95 % intervals. Blue lies above, orange "
        "below, pale is weak evidence, and where grey stands the interval contains no difference. Charts of one kind "
        "have the same axis."
    )
    return section("Other metrics", parts, note) if parts else None


def scatters(results: dict) -> Section | None:
    """Standard against every method, one dot per pair; binary metrics have four places only and are left out."""
    parts = []
    for setting in settings_of(results):
        drawn = []
        for metric in [each for each in metrics_of(results) if not verdicts.is_binary(results, each)]:
            here = [each for each in results["items"] if each["setting"] == setting and metric in each["scores"]]
            scale = verdicts.factor(results, metric)
            methods = [each for each in methods_of(results, setting) if here and each in here[0]["scores"][metric]]
            found = {name: [scale * each["scores"][metric][name] for each in here] for name in (STANDARD, *methods)}
            every = [score for values in found.values() for score in values]
            span = (min(every), max(every)) if every else None
            figures = [paired_scatter(found[STANDARD], found[method], method, span) for method in methods]
            if figures:
                drawn.append(Block(macros("charts.html").scatters(verdicts.label(results, metric), figures)))
        if drawn:
            drawn.append(Block(markdown="See report.html.\n"))
            parts.append((verdicts.setting_title(results, setting), drawn))
    note = (
        "One dot for each prompt and seed: standard across, the method up. Above the diagonal the method scores higher "
        "(blue), below it lower (orange)."
    )
    return section("Pairs of scores", parts, note) if parts else None


def head_to_head(results: dict) -> Section | None:
    reaches, parts = reaches_of(results, results["pairs"]), []
    for setting in in_order((), (each["setting"] for each in results["pairs"])):
        here = [each for each in results["pairs"] if each["setting"] == setting]
        blocks = []
        for metric in metrics_of(results):
            mine = [each for each in here if each["metric"] == metric]
            heading = f"{verdicts.title(results, metric)}, {chart_unit(results, metric)}"
            if mine:
                blocks.append(chart(results, mine, list(map(against, mine)), reaches, heading))
        for couple in in_order((), map(against, here)):
            mine = [each for each in here if against(each) == couple]
            blocks.append(finding(results, couple, mine, mine[0]["versus"]))
        parts.append((verdicts.setting_title(results, setting), blocks))
    return section("Nets against each other", parts, "On the same prompts and seeds.") if parts else None


def against(entry: dict) -> str:
    return f"{entry['method']} against {entry['versus']}" if "versus" in entry else entry["method"]


def by_category(results: dict) -> Section | None:
    if not results["categories"]:
        return None
    metrics, parts = metrics_of(results), []
    for setting in in_order((), (each["setting"] for each in results["categories"])):
        here = [each for each in results["categories"] if each["setting"] == setting]
        head = ["category and method", "pairs", *(verdicts.label(results, metric) for metric in metrics)]
        rows = []
        for category, method in in_order((), ((each["category"], each["method"]) for each in here)):
            mine = {e["metric"]: e for e in here if (e["category"], e["method"]) == (category, method)}
            cells = [rate(results, mine[metric]) if metric in mine else Cell("–") for metric in metrics]
            rows.append([f"{category} · {method}", brief(next(iter(mine.values()))["n"]), *cells])
        parts.append((verdicts.setting_title(results, setting), [table(head, rows)]))
    note = (
        f"As above, per category of prompts. {count(results['families']['categories'], 'comparison')}, whose p are "
        "corrected together: ▲ and ▼ stand after that. Categories are small, so intervals are wide."
    )
    return section("By category", parts, note)


def comparisons(results: dict) -> Section | None:
    """Every comparison with all its figures."""
    entries = results["methods"] + results["pairs"]
    if not entries:
        return None
    head = ["method", "metric", "pairs", "ties", "won, %", "95 %", "mean difference", "95 %", "p", "p corrected"]
    parts = []
    for setting in settings_of(results):
        rows = []
        for each in [each for each in entries if each["setting"] == setting]:
            scale, places = verdicts.factor(results, each["metric"]), verdicts.digits(results, each["metric"])
            wins, means = (
                interval(each[f"{k}_low"], each[f"{k}_high"], d, f)
                for k, d, f in (("wins", 1, 100), ("difference", places, scale))
            )
            rows.append(
                [
                    against(each),
                    verdicts.label(results, each["metric"]),
                    brief(each["n"]),
                    brief(each["ties"]),
                    fixed(100 * each["wins"], 1),
                    wins,
                    signed(scale * each["difference"], places),
                    means,
                    p_value(each["p"]),
                    p_value(each["p_holm"]),
                ]
            )
        parts.append((verdicts.setting_title(results, setting), [table(head, rows)]))
    note = (
        "Winning rate: ties counted half, Wilson's interval. Mean difference: percentile bootstrap over prompts. p: "
        "exact sign test without ties, two-sided. Seeds of one prompt are related: intervals and p of winning rates "
        "are those of as many independent pairs as tell as much. p is corrected after Holm over the "
        f"{count(results['families']['methods'], 'comparison')} of this table."
    )
    return section("All comparisons", parts, note)


# -- pictures ---------------------------------------------------------------------------------------------------------


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
            name = verdicts.title(results, metric)
            if ALL in chosen:
                note = f"All {count(len(pairs), 'pair')}, from the largest gain in {name} to the largest loss."
            else:
                note = (
                    f"{len(shown)} of {count(len(pairs), 'pair')}, chosen by the gain in {name} alone: {each} largest "
                    f"gains, {each} around the median, {each} largest losses. The others are in the folder images."
                )
            title = f"{method} · {verdicts.setting_title(results, setting)}"
            groups.append(Group(title, note, tuple(shown)))
    return Section("Pictures", pair_grid(groups), "See report.html and the folder images.\n")


def gain(item: dict, method: str, metric: str) -> float:
    scores = item["scores"][metric]
    return scores[method] - scores[STANDARD]


def pair_of(out: Path, results: dict, item: dict, method: str, metric: str, place: str) -> Pair:
    scale = verdicts.factor(results, metric)
    places = verdicts.digits(results, metric)
    shown = tuple(
        thumbnail(out / item["images"][name], name, fixed(scale * item["scores"][metric][name], places))
        for name in (STANDARD, method)
    )
    change = scale * gain(item, method, metric)
    return Pair(item["prompt"], item["seed"], change, signed(change, places), shown, item["category"], place)


# -- what it took -----------------------------------------------------------------------------------------------------


def cost(results: dict) -> Section | None:
    """Seconds and memory per image, of the rows that :func:`trainer.evaluation.cost.cost_per_image` makes."""
    rows = results["about"].get("cost", [])
    if not rows:
        return None
    parts = []
    for setting in in_order(settings_of(results), (row["setting"] for row in rows)):
        here = [row for row in rows if row["setting"] == setting]
        places = decimals(min(row["seconds"] for row in here) / 10)
        lines = []
        for row in here:
            alike = (STANDARD, row["device"], row["batch"])
            base = [each["seconds"] for each in here if (each["method"], each["device"], each["batch"]) == alike]
            extra = signed(100 * (row["seconds"] / base[0] - 1), 1) if base and row["method"] != STANDARD else "–"
            stages = [fixed(row[f"{stage}_seconds"], places) for stage in ("noise", "sample", "decode")]
            peak = "–" if row["peak_bytes"] is None else fixed(row["peak_bytes"] / 1e9, 2)
            where = f"{row['method']}, {row['device']}" if len({each["device"] for each in here}) > 1 else row["method"]
            lines.append([where, fixed(row["seconds"], places), extra, *stages, peak, brief(row["batch"])])
        head = ["method", "seconds per image", "more, %", "of these noise", "sampling", "decoding", "peak GB", "batch"]
        parts.append((verdicts.setting_title(results, setting), [table(head, lines)]))
    devices = ", ".join(in_order((), (row["device"] for row in rows)))
    note = f"Medians over the batches in this folder, on {devices}; peak memory is that of a whole batch on a GPU."
    return section("Cost", parts, note)


def diagnostics(results: dict) -> Section | None:
    """Figures of the nets that need no sampling: rows are figures, columns nets."""
    nets = {net: figures for net, figures in results["about"].get("diagnostics", {}).items() if figures}
    if not nets:
        return None
    names = in_order((), (name for figures in nets.values() for name in figures))
    rows = [[name, *(brief(figures.get(name)) for figures in nets.values())] for name in names]
    return section("The nets themselves", [("", [table(["", *nets], rows)])])


def provenance(results: dict) -> Section:
    """Commands, versions, models: what it takes to do it again."""
    about = results["about"]
    groups = {
        "Versions": about.get("versions", {}),
        "Methods": about.get("methods", {}),
        "Base model": {"from": about["base_model"]} if about.get("base_model") else {},
        **{f"Net {net}": facts or {} for net, facts in about.get("nets", {}).items()},
    }
    parts = []
    if command := about.get("command"):
        parts.append(("Command", [block("code", command)]))
    for heading, facts in groups.items():
        rows = [
            (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for name, value in facts.items()
        ]
        if rows:
            parts.append((heading, [block("facts", rows)]))
    note = "Every figure of this page stands in results.json, with the names it has here; every score in scores.jsonl."
    return section("How it was made", parts, note)
