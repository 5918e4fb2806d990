"""The paper's tables in small: ablations, selection, number of pairs, guidance, seeds, samplers, and another size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from npnet_core.checkpoint import load_npnet
from trainer.bases import Schedule
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.results import summarise
from trainer.evaluation.sampling_settings import Setting
from trainer.report.page import table
from trainer.shapes.pipeline_stages import COLLECTED_SEEDS, compare, fit_net, fits, two_settings
from trainer.shapes.workers import in_parallel
from trainer.shapes.world import SIZE
from trainer.shapes.worlds import Scale, World

SEVEN = ("ddim", "dpm-solver-multistep", "ddpm", "euler-ancestral", "pndm", "kdpm2-ancestral", "heun")  # table 10
FLOW_SAMPLERS = ("euler", "heun", "dpm-solver-multistep")
GUIDANCE = (1.0, 3.0, 5.5, 7.0)  # table 11
MARGINS = (2.0, 4.0, 8.0)  # table 9, in units of the log-likelihood
FEWER = (700, 1400)  # pairs kept, table 15


@dataclass(frozen=True)
class Variant:
    """A net that is fitted differently.

    Args:
        fit: what to change in :func:`trainer.shapes.pipeline_stages.fit_net`.
    """

    name: str
    fit: dict


VARIANTS = (
    Variant("full", {}),
    Variant("without-singular-values", {"without": ("svd",)}),
    Variant("without-residual", {"without": ("residual",)}),
    Variant("without-text-term", {"without": ("text",)}),
    Variant("without-selection", {"selected": False}),
    *(Variant(f"margin-{margin:g}", {"margin": margin}) for margin in MARGINS),
    *(Variant(f"{count}-pairs", {"limit": count}) for count in FEWER),
)


@dataclass(frozen=True)
class Table:
    """One comparison; all are made in one folder, so that what two of them need is made once.

    Args:
        nets: name → file.
        settings, methods, more: as for :func:`trainer.shapes.pipeline_stages.compare`.
    """

    title: str
    nets: Mapping[str, Path]
    settings: Sequence[Setting]
    methods: Sequence[str] = ("inversion", "npnet")
    more: Mapping[str, object] = field(default_factory=dict)


def make_tables(world: World, dataset: Path, scale: Scale, out: Path, seed: int) -> str:
    """Fit, sample and compare everything; Markdown. What is in ``out`` already is not made again."""
    files = {
        variant.name: fit_net(world, dataset, out / f"fit-{variant.name}", seed=seed, **variant.fit)
        for variant in VARIANTS
    }
    full, both = {"full": files["full"]}, list(two_settings(world).values())
    known = SEVEN if world.recipe.schedule.sampler in SEVEN else FLOW_SAMPLERS
    samplers = [Setting(Schedule(sampler, world.recipe.schedule.steps), 1.0, *SIZE) for sampler in known]
    guidance = [Setting(world.recipe.schedule, cfg, *SIZE) for cfg in GUIDANCE]
    seeds = {"seeds": COLLECTED_SEEDS}
    wide_pixels = f"{world.wide[1]}x{world.wide[0]}"
    wide, with_control = list(two_settings(world, world.wide).values()), ("inversion", "npnet", "wrong-prompt")
    tables = [
        Table("Ablations, selection and number of pairs (tables 4, 9, 14 and 15)", files, both),
        Table("Guidance (table 11)", full, guidance),
        Table("Samplers (table 10), at guidance 1", full, samplers),
        Table("Seeds that pairs were made of (table 16); other seeds above", full, both, more=seeds),
        Table(f"{wide_pixels} pixels, where the net's view is transported noise", full, wide, with_control),
    ]
    in_parallel(compare_all, world, tables, out / "compare", scale)
    parts = []
    for each, evaluation in zip(tables, compare_all(world, tables, out / "compare", scale), strict=True):
        parts += [f"## {each.title}", render(summarise(evaluation.rows, evaluation.about)["methods"], world.reports)]
    parts.insert(1, fits_table(files))
    return "\n\n".join(parts) + "\n"


def compare_all(
    world: World, tables: Sequence[Table], out: Path, scale: Scale, worker: tuple[int, int] = (0, 1)
) -> list[Evaluation]:
    """:func:`trainer.shapes.pipeline_stages.compare` for every table."""
    return [
        compare(world, each.nets, each.settings, out, scale, methods=each.methods, worker=worker, **each.more)
        for each in tables
    ]


def fits_table(files: Mapping[str, Path]) -> str:
    """What each net was fitted on and how much of the change it explains for prompts it never saw."""
    return table(*fits({name: load_npnet(path) for name, path in files.items()})).markdown


def render(rows: Sequence[dict], metric: str) -> str:
    """One line per setting and method: wins and difference of the metric, and the share of captions fully right."""
    right = {(row["setting"], row["method"]): row for row in rows if row["metric"] == "captions-right"}
    lines = [
        "| setting | noise | N | wins [95 %] | difference [95 %] | captions right (standard) |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        if row["metric"] == metric and row["method"] != "standard":
            shares = right[row["setting"], row["method"]]
            lines.append(
                f"| {row['setting']} | {row['method']} | {row['n']} "
                f"| {row['wins']:.3f} [{row['wins_low']:.3f}, {row['wins_high']:.3f}] "
                f"| {row['difference']:+.2f} [{row['difference_low']:+.2f}, {row['difference_high']:+.2f}] "
                f"| {shares['mean']:.3f} ({shares['standard']:.3f}) |"
            )
    return "\n".join(lines)
