"""The groups as a table: for the terminal, as CSV, and row by row for the report."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from experiments.compare.groups import Comparison
from experiments.compare.intervals import Interval
from experiments.compare.seeds import is_recorded, show_seed
from experiments.compare.swept_keys import show_values

MINUS = "\u2212"
NOTHING = "–"


@dataclass(frozen=True)
class GroupRow:
    """One group as text.

    Attributes:
        label: the group's label.
        settings: its value of each swept key.
        n: number of seeds.
        last: mean ± half of the interval at the end of the runs.
        best: the same for the best of each run.
        difference: mean difference to the control with its interval, "control", or a dash.
        certain: whether that interval excludes 0.
    """

    label: str
    settings: tuple[str, ...]
    n: str
    last: str
    best: str
    difference: str
    certain: bool


def rows(comparison: Comparison) -> list[GroupRow]:
    """Returns one row per group."""
    keys = comparison.swept.keys
    shown = [show_values(group.values[place] for group in comparison.groups) for place in range(len(keys))]
    controls = set(comparison.control.values())
    result = []
    for number, group in enumerate(comparison.groups):
        difference = comparison.difference.get(number)
        said = "control" if number in controls else NOTHING
        if difference is not None:
            said = show_difference(difference, comparison.factor)
            if difference.n < len(group.seeds):
                said += f" (n {difference.n})"
        result.append(
            GroupRow(
                label=group.label,
                settings=tuple(shown[place][value] for place, value in enumerate(group.values)),
                n=str(len(group.seeds)),
                last=show_interval(group.last_interval, comparison.factor),
                best=show_interval(group.best_interval, comparison.factor),
                difference=said,
                certain=difference is not None and difference.excludes_zero,
            )
        )
    return result


def show_interval(interval: Interval | None, factor: float) -> str:
    """Returns "67.1 ± 1.2", "98.1 [94.0, 100.0]" where an end is cut, "67.1 ± ?" where two seeds say nothing.

    Without an interval, the mean alone.
    """
    if interval is None:
        return NOTHING
    mean = _number(factor * interval.mean, factor)
    if interval.is_withheld:
        return f"{mean} ± ?"
    if interval.half_width is None:
        return mean
    if interval.is_cut:
        ends = (_number(factor * (end or 0.0), factor) for end in (interval.low, interval.high))
        return f"{mean} [{', '.join(ends)}]"
    return f"{mean} ± {_number(factor * interval.half_width, factor)}"


def show_difference(interval: Interval, factor: float) -> str:
    """Returns "+3.2 [+1.0, +5.4]", or the mean alone without an interval."""
    mean = _number(factor * interval.mean, factor, sign=True)
    if interval.is_withheld:
        return f"{mean} ± ?"
    if interval.low is None or interval.high is None:
        return mean
    low, high = (_number(factor * end, factor, sign=True) for end in (interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def interval_notes(comparison: Comparison) -> list[str]:
    """Returns what must be known of intervals that are not the plain ones; [] where all of them are."""
    notes = []
    if any(interval.is_withheld for interval in comparison.intervals):
        notes.append(
            "±\u00a0?: the interval of these two seeds would reach beyond what is possible, so nothing is known"
        )
    if any(interval.is_cut for interval in comparison.intervals):
        notes.append("an interval that would reach beyond what is possible ends there")
    return notes


def text_table(comparison: Comparison) -> str:
    """Returns the table for a terminal, and one of recalls for each label space."""
    unit = " in %" if comparison.in_per_cent else ""
    header = [*comparison.swept.keys, "seeds", f"{comparison.metric}{unit}, last", "best", "difference to control"]
    lines = [[*row.settings, row.n, row.last, row.best, row.difference] for row in rows(comparison)]
    parts = [aligned([header, *lines], len(comparison.swept.keys))]
    settings = [row.settings for row in rows(comparison)]
    for names, numbers in comparison.recall_sections:
        recalls = [
            [*settings[number], *(f"{100 * comparison.groups[number].recall[name].mean:.1f}" for name in names)]
            for number in numbers
        ]
        parts.append("recall in %, last")
        parts.append(aligned([[*comparison.swept.keys, *names], *recalls], len(comparison.swept.keys)))
    return "\n\n".join([*parts, *interval_notes(comparison)])


def write_csv(comparison: Comparison, path: Path) -> None:
    """Writes one row per group: settings, seeds, and every mean with the ends of its interval; shares in [0, 1]."""
    names = list(dict.fromkeys(name for group in comparison.groups for name in group.recall))
    quantities = [f"{comparison.metric}_last", f"{comparison.metric}_best", "difference_to_control"]
    quantities += [f"recall_{name}" for name in names]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [*comparison.swept.keys, "seeds", "is_control"]
            + [f"{quantity}_{part}" for quantity in quantities for part in ("mean", "low", "high", "n")]
        )
        controls = set(comparison.control.values())
        for number, group in enumerate(comparison.groups):
            intervals = [group.last_interval, group.best_interval, comparison.difference.get(number)]
            intervals += [group.recall.get(name) for name in names]
            seeds = " ".join(show_seed(seed) for seed in group.seeds if is_recorded(seed))
            writer.writerow(
                [*("" if value is None else value for value in group.values), seeds, number in controls]
                + [cell for interval in intervals for cell in _cells(interval)]
            )


def _cells(interval: Interval | None) -> list[float | int | None]:
    if interval is None:
        return [None, None, None, 0]
    return [interval.mean, interval.low, interval.high, interval.n]


def _number(value: float, factor: float, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''}.{1 if factor == 100 else 3}f}"
    return text.replace("-", MINUS)


def aligned(lines: list[list[str]], left: int) -> str:
    """Returns lines of cells in columns; the first ``left`` columns to the left, the rest to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
