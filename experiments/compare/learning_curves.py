"""How the metric of each run went while it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.compare.drawing import (
    DASHES,
    SERIES,
    Chart,
    clip_axis,
    finish,
    height_of,
    legend_below,
    new_figure,
    wrapped,
)
from experiments.compare.groups import Comparison, Group, bounds_of, is_share
from experiments.compare.run import Run
from synfer.runs.metrics_table import History

METRICS = ("val/accuracy", "val/mean_class_accuracy", "val/loss")
"""Drawn where the compared metric was measured only once: the first of these that a run holds."""

MAX_RUNS = 40
"""Lines in one chart; the first seeds of each group come first."""

MAX_POINTS = 400
"""Points of one line; of more, evenly spaced ones and the last."""


def learning_curves(comparison: Comparison, groups: Sequence[Group], folder: Path) -> list[Chart]:
    """Draws the metric of each run over its steps, one colour for each group.

    Args:
        comparison: the comparison.
        groups: those to draw, as many as there are colours.
        folder: where the PNG goes.

    Returns:
        One chart; none where no run has measured the metric more than once.
    """
    of_seeds = [(seed, number, run) for number, group in enumerate(groups) for seed, run in enumerate(group.runs)]
    chosen = sorted(of_seeds, key=lambda entry: entry[:2])[:MAX_RUNS]
    for metric in dict.fromkeys((comparison.metric, *METRICS)):
        lines = [(number, history) for _, number, run in chosen if len(history := _history(run, metric)) > 1]
        if lines:
            return [_draw(comparison, metric, groups, lines, len(of_seeds), folder)]
    return []


def _draw(
    comparison: Comparison,
    metric: str,
    groups: Sequence[Group],
    lines: Sequence[tuple[int, History]],
    num_runs: int,
    folder: Path,
) -> Chart:
    factor = 100.0 if is_share(metric) else 1.0
    named = len(groups) > 1
    figure, axes = new_figure(3.2 + (height_of([group.label for group in groups]) if named else 0))
    labelled: set[int] = set()
    for number, history in lines:
        steps, values = zip(*history, strict=True)
        axes.plot(
            *(steps, [factor * value for value in values]),
            color=SERIES[number], linestyle=DASHES[number], linewidth=1.3, alpha=0.8,
            label=wrapped(groups[number].label) if number not in labelled else None,
        )  # fmt: skip
        labelled.add(number)
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel(f"{metric} in %" if factor == 100 else metric)
    axes.set_xlim(left=0)
    clip_axis(axes, "y", bounds_of(metric), factor)
    axes.grid(axis="y")
    if named:
        legend_below(axes)
    note = "One line for each run, of its validations."
    if len(groups) < len(comparison.groups):
        note += f" Shown: controls and the best groups, {len(groups)} of {len(comparison.groups)}."
    if len(lines) < num_runs:
        note += f" {len(lines)} of {num_runs} runs."
    return finish(figure, "learning", f"{metric} while training", note, folder)


def _history(run: Run, metric: str) -> History:
    try:
        history = run.history(metric)
    except ValueError:  # the table says so already where it needs it
        return []
    if len(history) > MAX_POINTS:
        history = [*history[: -1 : -(-len(history) // MAX_POINTS)], history[-1]]
    return history
