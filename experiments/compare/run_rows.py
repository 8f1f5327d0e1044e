"""The runs one by one, for the report: figures, times, where they lie and how they are repeated; and their tests."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from experiments.compare.groups import Comparison, Group, is_share
from experiments.compare.run import Run
from experiments.compare.seeds import show_seed
from experiments.compare.tables import NOTHING
from synfer.runs.metric_text import in_order, number_text
from synfer.runs.run_format import CONFIG
from synfer.runs.time_text import time_text
from synfer.runs.wandb_login import web_address


@dataclass(frozen=True)
class RunRow:
    """One run as text.

    Attributes:
        name: its folder, or its path on W&B.
        link: address of that, relative to the report where it is a folder; "" = none.
        group: label of its group.
        seed: its seed.
        last: metric at its end.
        best: the best of its metric.
        started: day and minute, in UTC.
        took: wall time.
        command: what repeats it; "" of a run on W&B.
        more: (text, address) of further links.
    """

    name: str
    link: str
    group: str
    seed: str
    last: str
    best: str
    started: str
    took: str
    command: str
    more: tuple[tuple[str, str], ...]


def run_rows(comparison: Comparison, folder: Path) -> list[RunRow]:
    """Returns one row for each run of a comparison whose report lies in a folder."""
    return [_row(comparison, group, run, folder) for group in comparison.groups for run in group.runs]


def _row(comparison: Comparison, group: Group, run: Run, folder: Path) -> RunRow:
    factor, best = comparison.factor, group.best_of_run.get(run.name)
    started = None if run.started is None else datetime.fromtimestamp(run.started, timezone.utc)
    return RunRow(
        name=run.name,
        link=_wandb_address(run.name) if run.folder is None else _address(run.folder, folder),
        group=group.label,
        seed=NOTHING if run.repetition is None else show_seed(run.repetition),
        last=number_text(factor * run.last[comparison.metric]),
        best=NOTHING if best is None else number_text(factor * best),
        started=NOTHING if started is None else f"{started:%Y-%m-%d %H:%M}",
        took=NOTHING if run.wall_s is None else time_text(run.wall_s),
        command="" if run.folder is None else f"python train.py fit --config {shlex.quote(str(run.folder / CONFIG))}",
        more=tuple((f"misclassified, {path.stem}", _address(path, folder)) for path in run.misclassified),
    )


def _address(path: Path, folder: Path) -> str:
    """Returns a link that a browser follows from a report in a folder; none to another disk."""
    try:
        relative = os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:
        return ""
    return quote(relative + ("/" if path.is_dir() else ""))


def _wandb_address(name: str) -> str:
    project, _, run = name.rpartition("/")
    return f"{web_address()}/{quote(project)}/runs/{quote(run)}" if project.count("/") == 1 else ""


def metrics_of_tests(groups: Sequence[Group]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Returns the groups whose runs were tested, and each test metric of whole sets with its mean in each of them.

    Main figures come first; shares are in per cent.
    """
    tested = [(group, _means(group)) for group in groups]
    tested = [(group, means) for group, means in tested if means]
    names = in_order({name for _, means in tested for name in means})
    rows = []
    for name in names:
        factor = 100.0 if is_share(name) else 1.0
        cells = [number_text(round(factor * means[name], 4)) if name in means else NOTHING for _, means in tested]
        rows.append((name.removeprefix("test/") + (" in %" if factor == 100 else ""), cells))
    return [group.label for group, _ in tested], rows


def _means(group: Group) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for run in group.runs:
        for name, value in run.last.items():
            if name.startswith("test/") and name.count("/") == 1:
                values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
