"""metrics.csv of the run folder (C5): one file, appended to when a run continues."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from synfer.runs.metrics_table import FIRST_COLUMNS, append_rows, read_rows, write_rows
from synfer.runs.run_format import METRICS


class MetricsCsv(Logger):
    """Writes ``<run_dir>/metrics.csv``: one row per call, a column per metric name, empty where not logged.

    Lightning's own CSV logger puts the file two folders deep and deletes what it finds there, which would lose the
    first half of a run that is continued. Only rank 0 writes.

    Args:
        run_dir: the run folder.
        append: keep the rows that are already there (a run that is continued or evaluated); otherwise start afresh.
        before_step: keep only rows of steps before this one: a run that was killed has logged steps after its last
            checkpoint, which it takes again. None = all.
        flush_rows: rows kept in memory before they are written.
    """

    def __init__(
        self, run_dir: str | Path, append: bool = False, before_step: int | None = None, flush_rows: int = 20
    ) -> None:
        super().__init__()
        self.path = Path(run_dir) / METRICS
        self.append = append
        self.before_step = before_step
        self.flush_rows = flush_rows
        self._columns: list[str] | None = None
        self._pending: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Empty: a run folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder; ``trainer.log_dir`` follows it."""
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keeps one row; ``step`` is the number of optimiser steps done."""
        self._pending.append({"step": step, **{name: float(value) for name, value in metrics.items()}})
        if len(self._pending) >= self.flush_rows:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows kept so far; the file is written anew only when a new metric name appears."""
        if not self._pending:
            return
        first_write = self._columns is None
        earlier: list[dict[str, Any]] = []
        if first_write:
            earlier = self._read(self.before_step) if self.append else []
            self._columns = list(earlier[0]) if earlier else list(FIRST_COLUMNS)
        assert self._columns is not None
        new = sorted({name for row in self._pending for name in row} - set(self._columns))
        if new and not first_write:
            earlier = self._read()
        self._columns += new
        if new or first_write:  # anew, which also mends what a kill has left of a last line
            write_rows(self.path, self._columns, earlier + self._pending)
        else:
            append_rows(self.path, self._columns, self._pending)
        self._pending = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left, also after a failure."""
        self.save()

    def _read(self, before_step: int | None = None) -> list[dict[str, Any]]:
        rows, damaged = read_rows(self.path, before_step)
        for line in damaged:
            rank_zero_warn(f"{self.path}: line {line} has not the columns of the first one; left out")
        return rows
