"""The report: one HTML file that needs nothing else, for wide screens and phones, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.compare.attribute_rows import scores_by_attribute
from experiments.compare.drawing import COLOURS, Chart
from experiments.compare.groups import Comparison
from experiments.compare.run_rows import metrics_of_tests, run_rows
from experiments.compare.sample_strips import Strip
from experiments.compare.swept_keys import short_name
from experiments.compare.tables import interval_notes, rows, show_interval


def write_report(
    comparison: Comparison, charts: Sequence[Chart], strips: Sequence[Strip], warnings: Sequence[str], path: Path
) -> None:
    """Writes the report.

    Args:
        comparison: what to show.
        charts: as SVG that uses the CSS variables of :data:`experiments.compare.charts.COLOURS`.
        strips: pictures of the groups.
        warnings: one line each, folded above everything else.
        path: HTML file to write.
    """
    environment = Environment(
        loader=PackageLoader("experiments.compare", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    table = rows(comparison)

    def is_curve(chart: Chart) -> bool:
        return chart.name.startswith("curve_") or chart.name == "learning"

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
        curves=[chart for chart in charts if is_curve(chart)],
        charts=[chart for chart in charts if not is_curve(chart)],
        recalls=_recall_tables(comparison),
        strips=strips,
        runs=run_rows(comparison, path.parent),
        tested=metrics_of_tests(comparison.groups),
        attributes=scores_by_attribute(comparison.groups),
        notes=interval_notes(comparison),
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
