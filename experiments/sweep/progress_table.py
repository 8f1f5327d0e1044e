"""What has become of each run, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.cluster.slurm_queue import queued_jobs
from experiments.sweep.sweep_run import SweepRun
from synfer.runs.time_text import time_text

_COLOURS = {"finished": "green", "skipped": "green", "running": "cyan", "failed": "red", "interrupted": "yellow"}
_LIVE_ORDER = (
    "running",
    "failed",
    "locked",
    "interrupted",
    "killed",
    "finished",
    "skipped",
    "pending",
    "submitted",
    "waiting",
)


@dataclass
class ProgressRow:
    """One run in the table.

    Attributes:
        run: the run.
        status: waiting, submitted (to SLURM, which does not answer), pending (in its queue), running, finished, skipped
            (finished before), failed, interrupted, killed (without a word) or locked (another process has it).
        seconds: wall time; None = not known.
        note: what else is to be said, such as the error line.
    """

    run: SweepRun
    status: str
    seconds: float | None = None
    note: str = ""


def rows_from_folders(runs: Sequence[SweepRun]) -> list[ProgressRow]:
    """Returns what the run folders say, and SLURM of the runs that were submitted to it."""
    queue = queued_jobs() if any(run.job() is not None for run in runs) else None
    return [
        ProgressRow(run, status := run.status(queue), run.summary().get("wall_s"), _note(run, status)) for run in runs
    ]


def _note(run: SweepRun, status: str) -> str:
    return f"job {run.job()}" if status in ("submitted", "pending") else run.error()


def progress_table(rows: Sequence[ProgressRow], metric: str | None, live: bool = False) -> Table:
    """Returns run, status, metric, time and note of each run, the busy ones first where it is live."""
    table = Table(box=SIMPLE_HEAD, caption=count_line(rows), caption_justify="left", show_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column(metric or "metric", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    ordered = sorted(rows, key=lambda row: _LIVE_ORDER.index(row.status)) if live else rows
    for row in ordered:
        value = row.run.metric(metric)
        table.add_row(
            row.run.name,
            row.status,
            "" if value is None else f"{value:.4f}",
            "" if row.seconds is None else time_text(row.seconds),
            row.note.replace("[", r"\["),
            style=_COLOURS.get(row.status),
        )
    return table


def count_line(rows: Sequence[ProgressRow]) -> str:
    """Returns how many runs have which status, such as "15 runs: 3 finished, 12 waiting"."""
    counts = Counter(row.status for row in rows)
    found = ", ".join(f"{counts[status]} {status}" for status in _LIVE_ORDER if counts[status])
    return f"{len(rows)} run{'s' if len(rows) != 1 else ''}: {found}"


def make_console() -> Console:
    """Returns the console; where nobody watches, lines are wide enough for a long run name."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
