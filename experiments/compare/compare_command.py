"""Compares finished runs: ``python compare.py runs/ [--control KEY=VALUE] [--metric val/accuracy] [--out FOLDER]``.

Prints a table of the groups of runs and writes report.html, table.csv and the charts as PNG. Imports neither torch nor
Lightning, so it works on a machine that could not train.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.command_line.commands import called_as
from experiments.compare.attribute_rows import attribute_table
from experiments.compare.charts import draw_charts
from experiments.compare.checks import check, usable_runs
from experiments.compare.groups import choose_metric, compare
from experiments.compare.html_report import write_report
from experiments.compare.run_folders import read_run_folders
from experiments.compare.sample_strips import sample_strips
from experiments.compare.swept_keys import parse_setting
from experiments.compare.tables import text_table, write_csv
from experiments.compare.wandb_project import read_wandb_project

DEFAULT_OUT = Path("runs") / "comparison"


def main(args: Sequence[str] | None = None) -> int:
    """Runs the comparison.

    Args:
        args: command line without the program's name; None = ``sys.argv[1:]``.

    Returns:
        0, or 2 after one line on stderr where nothing can be compared.
    """
    options = _parser().parse_args(args)
    try:
        warnings = _compare(options)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    print(f"\nreport: {options.out / 'report.html'}")
    return 0


def _compare(options: argparse.Namespace) -> list[str]:
    if not options.folders and not options.wandb:
        raise ValueError("found neither a folder nor --wandb, expected e.g.: python compare.py runs/")
    runs, warnings = read_run_folders(options.folders)
    for project in options.wandb:
        more, unreadable = read_wandb_project(project)
        runs += more
        warnings += unreadable
    if not runs:
        raise ValueError(f"nothing to compare: {'; '.join(warnings)}")
    metric = choose_metric(runs, options.metric)
    usable, left_out = usable_runs(runs, metric)
    warnings += left_out
    if not usable:
        raise ValueError(f"nothing to compare: {'; '.join(warnings)}")
    control = dict(parse_setting(text) for text in options.control) or None
    swept = [key.strip() for keys in options.swept for key in keys.split(",") if key.strip()] or None
    comparison = compare(usable, metric, swept, control)
    warnings += check(comparison)

    options.out.mkdir(parents=True, exist_ok=True)
    charts = draw_charts(comparison, options.out, options.against)
    strips, unreadable = sample_strips(comparison.groups)
    warnings += unreadable
    write_csv(comparison, options.out / "table.csv")
    write_report(comparison, charts, strips, warnings, options.out / "report.html")
    print(text_table(comparison))
    by_attribute = attribute_table(comparison)
    if by_attribute:
        print(f"\n{by_attribute}")
    return warnings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called_as("compare", sys.argv[0]),
        description="Compare finished runs: a table, curves, and a report with both.",
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="*", help="run folders, or folders with run folders below them")
    parser.add_argument(
        "--wandb", action="append", default=[], metavar="ENTITY/PROJECT", help="a W&B project to read as well"
    )
    parser.add_argument("--metric", help="metric to compare (default: val/accuracy, or what the runs hold)")
    parser.add_argument("--against", metavar="METRIC", help="also draw the metric against this one, say test/frechet/x")
    parser.add_argument(
        "--control", action="append", default=[], metavar="KEY=VALUE",
        help="settings of the control group (default: data.synthetic_ratio=0 where the ratio was swept)",
    )  # fmt: skip
    parser.add_argument(
        "--swept", action="append", default=[], metavar="KEYS",
        help="keys to group by, separated by commas (default: all that differ, seeds apart)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"folder to write to (default: {DEFAULT_OUT})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
