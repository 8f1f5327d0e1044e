"""The report: one HTML file that needs nothing else, for wide screens and phones, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.compare.charts import COLOURS, Chart
from experiments.compare.groups import Comparison
from experiments.compare.sample_strips import Strip
from experiments.compare.seeds import show_seed
from experiments.compare.swept_keys import short_name
from experiments.compare.tables import NOTHING, rows, show_interval


def write_report(
    comparison: Comparison, charts: Sequence[Chart], strips: Sequence[Strip], warnings: Sequence[str], path: Path
) -> None:
    """Writes the report.

    Args:
        comparison: what to show.
        charts: as SVG that uses the CSS variables of :data:`experiments.compare.charts.COLOURS`.
        strips: pictures of the groups.
        warnings: one line each, shown above everything else.
        path: HTML file to write.
    """
    environment = Environment(
        loader=PackageLoader("experiments.compare", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    table = rows(comparison)
    controls = sorted(set(comparison.control.values()))
    page = environment.get_template("report.html").render(
        metric=comparison.metric,
        unit=" in %" if comparison.in_per_cent else "",
        points=" in points" if comparison.in_per_cent else "",
        num_runs=comparison.num_runs,
        num_groups=len(comparison.groups),
        keys=[(key, short_name(key)) for key in comparison.swept.keys],
        controls=[comparison.groups[number].label for number in controls],
        written=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        warnings=warnings,
        rows=table,
        curves=[chart for chart in charts if chart.name.startswith("curve_")],
        charts=[chart for chart in charts if not chart.name.startswith("curve_")],
        recalls=_recall_tables(comparison),
        strips=strips,
        runs=_run_rows(comparison),
        colours=COLOURS,
    )
    path.write_text(page, encoding="utf-8")


def _recall_tables(comparison: Comparison) -> list[tuple[tuple[str, ...], list[tuple[str, list[tuple[str, int]]]]]]:
    """Returns for each label space its names and (group, [(text, recall in whole per cent)])."""
    return [
        (
            names,
            [
                (group.label, [(show_interval(group.recall[n], 100), round(100 * group.recall[n].mean)) for n in names])
                for group in (comparison.groups[number] for number in numbers)
            ],
        )
        for names, numbers in comparison.recall_sections
    ]


def _run_rows(comparison: Comparison) -> list[tuple[str, str, str, str, str]]:
    """Returns name, group, seed, last and best of every run."""
    return [
        (
            run.name,
            group.label,
            NOTHING if run.repetition is None else show_seed(run.repetition),
            f"{comparison.factor * run.last[comparison.metric]:.4g}",
            f"{comparison.factor * group.best_of_run[run.name]:.4g}" if run.name in group.best_of_run else NOTHING,
        )
        for group in comparison.groups
        for run in group.runs
    ]
