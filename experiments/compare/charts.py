"""Charts of a comparison: drawn once, written as PNG and as SVG that follows the page's light or dark colours."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.ticker import MaxNLocator

from experiments.compare.drawing import (
    DASHES,
    LABEL,
    LIGHT,
    LINE,
    MARKERS,
    MAX_LINES,
    SERIES,
    STYLE,
    Chart,
    bars_of,
    clip_axis,
    draw_seeds,
    finish,
    height_of,
    legend_below,
    new_figure,
    wrapped,
)
from experiments.compare.groups import Comparison, Group, bounds_of
from experiments.compare.intervals import Interval
from experiments.compare.learning_curves import learning_curves
from experiments.compare.swept_keys import OFF, short_name, show_values
from synfer.metrics.directions import direction
from synfer.runs.flat_settings import Value

FILES = ("curve_*.png", "learning.png", "trade_off.png", "differences.png", "groups.png", "recall.png", "recall_*.png")
"""Names of the pictures."""

MAX_ROWS = 30
"""Rows of the interval chart."""

AXIS_NAMES = {
    "data.synthetic_ratio": "synthetic share of each batch",
    "data.synthetic_multiple": "synthetic faces ÷ real training faces",
    "data.training_fraction": "share of the real training rows",
    "guidance.step_size": "guidance strength (step size)",
    "guidance.latent_step_size": "guidance strength (step of the latents)",
    "synthesis.sampling.guidance_scale": "classifier-free guidance scale",
    "model.sampling.guidance_scale": "classifier-free guidance scale",
}


def draw_charts(comparison: Comparison, folder: Path, against: str | None = None) -> list[Chart]:
    """Draws all charts that the comparison has values for and writes each as PNG into a folder.

    Args:
        comparison: the groups.
        folder: where the PNG files go.
        against: another metric, for a chart of one against the other.

    Raises:
        ValueError: no run holds the other metric, or no number was swept.

    Returns:
        A curve for each swept number that changes along some line, the interval of each group, and recalls per
        expression and label space.
    """
    if (folder / "report.html").is_file():  # of an earlier comparison, which may have had other charts
        for stale in itertools.chain.from_iterable(folder.glob(pattern) for pattern in FILES):
            stale.unlink()
    charts = []
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        for key in numeric_keys(comparison):
            lines = lines_of(comparison, key)
            if any(len(points) > 1 for points in lines.values()):
                charts.append(_curve(comparison, key, lines, folder))
        if against is not None:
            charts.append(_trade_off(comparison, against, folder))
        if len(comparison.groups) > 1:
            charts.append(_intervals(comparison, folder))
        charts += learning_curves(comparison, shown_groups(comparison, range(len(comparison.groups))), folder)
        sections = comparison.recall_sections
        for count, (names, numbers) in enumerate(sections, start=1):
            name = "recall" if len(sections) == 1 else f"recall_{count}"
            charts.append(_recalls(comparison, names, numbers, name, folder))
    return charts


def numeric_keys(comparison: Comparison) -> list[str]:
    """Returns the swept keys with at least two different numbers among their values."""
    return [
        key
        for place, key in enumerate(comparison.swept.keys)
        if len({group.values[place] for group in comparison.groups if _is_number(group.values[place])}) > 1
    ]


def lines_of(comparison: Comparison, key: str) -> dict[str, list[tuple[float, Group]]]:
    """Returns label → points of each line of the curve over a swept key, by ascending number.

    A line is what agrees in all other swept keys; its label names those in which lines differ. Groups in which another
    key is off only at numbers where no line has points of its own (real-only training, whatever the generator) are no
    line but the continuation of every line that they agree with otherwise.
    """
    place = comparison.swept.keys.index(key)
    others = [number for number in range(len(comparison.swept.keys)) if number != place]
    points: dict[tuple[Value, ...], dict[float, Group]] = {}
    for group in comparison.groups:
        x = group.values[place]
        if _is_number(x):
            points.setdefault(tuple(group.values[other] for other in others), {})[float(x)] = group  # type: ignore[arg-type]
    continued: dict[tuple[Value, ...], dict[float, Group]] = {line: dict(own) for line, own in points.items()}
    for line, own in points.items():
        met = [narrower for narrower in points if narrower != line and _agrees(line, narrower)]
        if met and not any(own.keys() & points[narrower].keys() for narrower in met):
            del continued[line]
            for narrower in met:
                if narrower in continued:
                    continued[narrower].update(own)
    result = {}
    for line, found in continued.items():
        named = []
        for position, other in enumerate(others):
            if len({line[position] for line in continued}) > 1:
                shown = show_values(group.values[other] for group in comparison.groups)
                named.append(f"{short_name(comparison.swept.keys[other])} {shown[line[position]]}")
        result[", ".join(named)] = sorted(found.items(), key=lambda point: point[0])
    return result


def _agrees(line: Sequence[Value], other: Sequence[Value]) -> bool:
    """Whether two lines agree in every key that is not off in the first."""
    return all(mine in (theirs, OFF) for mine, theirs in zip(line, other, strict=True))


def shown_groups(comparison: Comparison, numbers: Sequence[int], limit: int = MAX_LINES) -> list[Group]:
    """Returns these groups; of too many the controls and then those that did best, in their order."""
    controls = set(comparison.control.values())
    sign = 1 if direction(comparison.metric) == "lower" else -1
    ranked = sorted(
        numbers, key=lambda number: (number not in controls, sign * comparison.groups[number].last_interval.mean)
    )
    return [comparison.groups[number] for number in sorted(ranked[:limit])]


def _curve(comparison: Comparison, key: str, lines: dict[str, list[tuple[float, Group]]], folder: Path) -> Chart:
    place = comparison.swept.keys.index(key)
    flat = [group for group in comparison.groups if not _is_number(group.values[place])][: MAX_LINES - 1]
    labels = [*list(lines)[:MAX_LINES], *(group.label for group in flat)] if len(lines) > 1 or flat else []
    figure, axes = new_figure(3.3 + height_of(labels))
    factor = comparison.factor
    for number, (label, points) in enumerate(list(lines.items())[:MAX_LINES]):
        colour = SERIES[number]
        xs = [x for x, _ in points]
        intervals = [group.last_interval for _, group in points]
        axes.plot(
            *(xs, [factor * interval.mean for interval in intervals]),
            color=colour, linestyle=DASHES[number], marker=MARKERS[number], linewidth=2, markersize=6,
            label=wrapped(label),
        )  # fmt: skip
        seeds = [(x, factor * value) for x, group in points for value in group.last.values() if len(group.last) > 1]
        draw_seeds(axes, [x for x, _ in seeds], [y for _, y in seeds], colour)
        banded = [(x, i.low, i.high) for x, i in zip(xs, intervals, strict=True) if i.low is not None]
        if banded:
            low, high = ([factor * float(entry[side] or 0) for entry in banded] for side in (1, 2))
            axes.fill_between([x for x, *_ in banded], low, high, color=colour, alpha=0.16, linewidth=0)
            axes.errorbar(
                *([x for x, *_ in banded], [(a + b) / 2 for a, b in zip(low, high, strict=True)]),
                yerr=[(b - a) / 2 for a, b in zip(low, high, strict=True)],
                fmt="none", color=colour, ecolor=colour, elinewidth=1.2, capsize=3,
            )  # fmt: skip
    for number, group in enumerate(flat):
        axes.axhline(
            factor * group.last_interval.mean,
            color=LIGHT["muted"], linewidth=1.4, linestyle=DASHES[1 + number],
            label=wrapped(group.label),
        )  # fmt: skip
    axes.set_xlabel(f"{AXIS_NAMES[key]}\n({key})" if key in AXIS_NAMES else key)
    axes.set_ylabel(f"{comparison.metric} in %" if comparison.in_per_cent else comparison.metric)
    numbers = sorted({x for points in lines.values() for x, _ in points})
    closest = min(b - a for a, b in itertools.pairwise(numbers))
    if closest >= 0.07 * (numbers[-1] - numbers[0]):  # else their labels would meet
        axes.set_xticks(numbers, [f"{x:g}" for x in numbers])
    axes.yaxis.set_major_locator(MaxNLocator(6))
    clip_axis(axes, "y", bounds_of(comparison.metric), factor)
    axes.grid(axis="y")
    if labels:
        legend_below(axes)
    left_out = len(lines) - MAX_LINES
    note = "Band and bars: 95 % t-interval over seeds; small dots: the seeds."
    if left_out > 0:
        note += f" {left_out} more lines are in the table only."
    title = f"{comparison.metric} against {AXIS_NAMES.get(key, key)}"
    return finish(figure, f"curve_{re.sub(r'[^a-z0-9]+', '_', short_name(key).lower())}", title, note, folder)


def _trade_off(comparison: Comparison, against: str, folder: Path) -> Chart:
    """Draws one metric against another: a line for each value of the other keys, a point for each swept number."""
    keys = numeric_keys(comparison)
    if not keys:
        raise ValueError(f"--against {against}: no number was swept, expected one along which to draw")
    place = comparison.swept.keys.index(keys[0])
    decided = {place, *(i for i, key in enumerate(comparison.swept.keys) if key.endswith(".enabled"))}
    lines: dict[str, list[tuple[float, float, float, str]]] = {}
    for group in comparison.groups:
        values = [run.last[against] for run in group.runs if against in run.last]
        if not values:
            continue
        number = group.values[place]
        line = ", ".join(
            f"{short_name(key)} {group.values[i]}" for i, key in enumerate(comparison.swept.keys) if i not in decided
        )
        order = float(number) if _is_number(number) else float("-inf")  # type: ignore[arg-type]
        point = (order, sum(values) / len(values), comparison.factor * group.last_interval.mean, str(number))
        lines.setdefault(line, []).append(point)
    if not lines:
        raise ValueError(f"--against {against}: found no run with this metric")
    figure, axes = new_figure(3.6 + height_of(list(lines)))
    for number, (label, points) in enumerate(list(lines.items())[:MAX_LINES]):
        points = sorted(points)
        axes.plot(
            [x for _, x, _, _ in points], [y for _, _, y, _ in points],
            color=SERIES[number], linestyle=DASHES[number], marker=MARKERS[number], linewidth=2, markersize=6,
            label=wrapped(label or comparison.metric),
        )  # fmt: skip
        for _, x, y, text in points:
            axes.annotate(text, (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8, color=LIGHT["muted"])
    axes.set_xlabel(against)
    axes.set_ylabel(f"{comparison.metric} in %" if comparison.in_per_cent else comparison.metric)
    axes.grid(axis="both")
    if len(lines) > 1:
        legend_below(axes)
    title = f"{comparison.metric} against {against}"
    note = f"Beside each point its {keys[0]}. Means over runs."
    return finish(figure, "trade_off", title, note, folder)


def _intervals(comparison: Comparison, folder: Path) -> Chart:
    """Draws differences to the control where there are any, else the mean of each group."""
    factor = comparison.factor
    rows: list[tuple[str, Interval]]
    if comparison.difference:
        rows = [(comparison.groups[n].label, interval) for n, interval in sorted(comparison.difference.items())]
        title, unit = "Difference to the control, paired by seed", "points" if comparison.in_per_cent else ""
        axis = f"difference in {comparison.metric}" + (f" ({unit})" if unit else "")
    else:
        rows = [(group.label, group.last_interval) for group in comparison.groups]
        title, axis = f"{comparison.metric} of each group", comparison.metric + comparison.unit.replace(" ", " in ")
    shown = [(wrapped(label), interval) for label, interval in rows[:MAX_ROWS]]
    ys = list(itertools.accumulate(2.4 + label.count("\n") for label, _ in shown))  # in lines of text
    figure, axes = new_figure(0.7 + LINE * (ys[-1] + 1))
    for y, (label, interval) in zip(ys, shown, strict=True):
        colour = SERIES[0] if interval.excludes_zero or not comparison.difference else LIGHT["muted"]
        axes.errorbar(
            factor * interval.mean, y,
            xerr=None if interval.half_width is None else bars_of([interval], factor),
            fmt="o", color=colour, markersize=7, elinewidth=2, capsize=4,
        )  # fmt: skip
        if interval.n > 1:
            draw_seeds(axes, [factor * value for value in interval.values], [y + 0.5] * interval.n, colour)
        axes.text(0.0, y - 0.7, label, transform=axes.get_yaxis_transform(), va="bottom", fontsize=10, **LABEL)
    if comparison.difference:
        axes.axvline(0, color=LIGHT["ink"], linewidth=1)
    axes.set(ylim=(ys[-1] + 1, 0), yticks=[], xlabel=axis)
    bounds = bounds_of(comparison.metric)
    if bounds and comparison.difference:
        bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    clip_axis(axes, "x", bounds, factor)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    note = "Dot: mean; bar: 95 % t-interval; small dots: the seeds."
    if comparison.difference:
        note = (
            "Dot: mean over seeds that both have; bar: 95 % t-interval; small dots: the seeds. "
            "Grey: the interval holds 0, or there is none."
        )
    if len(rows) > MAX_ROWS:
        note += f" {len(rows) - MAX_ROWS} more groups are in the table only."
    return finish(figure, "differences" if comparison.difference else "groups", title, note, folder)


def _recalls(comparison: Comparison, names: tuple[str, ...], numbers: Sequence[int], name: str, folder: Path) -> Chart:
    groups = shown_groups(comparison, numbers)
    height = 0.8 / len(groups)
    labels = [group.label for group in groups]
    figure, axes = new_figure(0.7 + len(names) * (0.2 + 0.14 * len(groups)) + height_of(labels))
    for number, group in enumerate(groups):
        intervals = [group.recall[expression] for expression in names]
        axes.barh(
            [place + (number + 0.5) * height - 0.4 for place in range(len(names))],
            [100 * interval.mean for interval in intervals],
            height=0.88 * height, color=SERIES[number], label=wrapped(group.label),
            xerr=bars_of(intervals, 100),
            error_kw={"ecolor": LIGHT["ink"], "elinewidth": 0.9},
        )  # fmt: skip
        seeds = [(100 * value, place) for place, i in enumerate(intervals) for value in i.values if i.n > 1]
        ys = [place + (number + 0.5) * height - 0.4 for _, place in seeds]
        draw_seeds(axes, [value for value, _ in seeds], ys, LIGHT["ink"])
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 100), xlabel="recall in %")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    legend_below(axes)
    note = "Bar: mean over seeds; line: 95 % t-interval; dots: the seeds."
    if len(groups) < len(numbers):
        note += f" Shown: controls and the groups with the best {comparison.metric}, {len(groups)} of {len(numbers)}."
    title = f"Recall per expression ({len(names)} expressions)"
    return finish(figure, name, title, note, folder)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
