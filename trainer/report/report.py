"""Figures of a run → ``report.html``, one file that needs nothing else; ``report.md``; ``results.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.evaluation.results import write_results
from trainer.report import labels
from trainer.report.cost import cost
from trainer.report.diagnostics import diagnostics
from trainer.report.diversity import diversity
from trainer.report.entries import settings_of
from trainer.report.formatting import count
from trainer.report.page import Section, markdown_page, page
from trainer.report.pictures import pictures
from trainer.report.plots import head_to_head, scatters, win_rates
from trainer.report.provenance import provenance
from trainer.report.spending import spending
from trainer.report.summary import summary
from trainer.report.tables import by_category, comparisons, scores

TITLE = "Golden noise against standard noise"


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
    before = [summary(results), spending(results), scores(results), win_rates(results), diversity(results)]
    before += [scatters(results), head_to_head(results), by_category(results), pictures(out, results)]
    after = [cost(results), diagnostics(results), comparisons(results), provenance(results)]
    return [each for each in before if each], [each for each in after if each]


def subtitle(results: dict) -> str:
    settings = settings_of(results)
    parts = [f"{count(results['n'], 'pair')} of {count(results['prompts'], 'prompt')}"]
    parts += [labels.setting_title(results, settings[0]) if len(settings) == 1 else count(len(settings), "setting")]
    if base := results["about"].get("base_model"):
        parts.append(Path(base).name or base)
    return " · ".join(parts)
