"""The runs of a sweep on this machine, a few at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rich.console import Console
from rich.live import Live

from experiments.sweep.child_process import ChildProcess
from experiments.sweep.progress_table import ProgressRow, progress_table
from experiments.sweep.sweep_run import SweepRun
from synfer.runs.time_text import time_text

POLL_S = 0.2
STOP_TIMEOUT_S = 30.0
"""How long a run may take to stop before it is killed."""


class LocalRunner:
    """Runs what is not finished, ``jobs`` processes at a time.

    Finished runs are kept, broken ones go on from their last checkpoint. A run that another process is at work on is
    waited for, and taken over if that process dies. SIGINT, SIGTERM and SIGHUP stop the sweep: children are asked to
    stop and waited for; a second signal kills them.

    Args:
        runs: the runs, in order.
        jobs: processes at a time.
        devices: one per slot, in turn, as ``CUDA_VISIBLE_DEVICES``; empty = whatever is visible.
        environment: variables for every run.
        metric: what the table shows.
        console: where to print.
    """

    def __init__(
        self,
        runs: Sequence[SweepRun],
        jobs: int,
        devices: Sequence[str],
        environment: dict[str, str],
        metric: str | None,
        console: Console,
    ) -> None:
        self.jobs = jobs
        self.devices = devices
        self.environment = environment
        self.metric = metric
        self.console = console
        self.rows = [ProgressRow(run, "waiting") for run in runs]
        self.active: dict[int, tuple[ProgressRow, ChildProcess]] = {}
        self.signals: list[int] = []
        self._began = time.monotonic()

    def run(self) -> int:
        """Returns 0 when every run has finished, 1 when one did not, 128 + signal when stopped."""
        with self._signals_noted(), self._live() as show:
            try:
                while not self.signals and any(row.status in ("waiting", "running", "locked") for row in self.rows):
                    self._collect()
                    self._start()
                    show()
                    time.sleep(POLL_S)
            finally:
                self._stop()
        self.console.print(progress_table(self.rows, self.metric))
        if self.signals:
            self.console.print("stopped; the same command goes on with what is not finished")
            return 128 + self.signals[0]
        return 1 if any(row.status in ("failed", "interrupted") for row in self.rows) else 0

    def _start(self) -> None:
        """Fills the free slots."""
        free = [slot for slot in range(self.jobs) if slot not in self.active]
        for row in self.rows:
            if row.status not in ("waiting", "locked") or self.signals:
                continue
            if row.run.is_finished():
                self._keep(row)
                continue
            if not free:
                continue
            lock = row.run.lock
            if not lock.take():
                if row.status != "locked":
                    row.status, row.note = "locked", f"{lock.holder()} is at work on it"
                    self._say(f"{row.run.name}: {row.note}; going on with the others")
                continue
            if row.run.is_finished():  # by whoever held the lock a moment ago
                lock.release()
                self._keep(row)
                continue
            slot = free.pop(0)
            try:
                child = ChildProcess(row.run, lock, self._environment(slot))
            except OSError as error:  # a launcher that is not there, a full disk
                lock.release()
                row.status, row.note = "failed", str(error)
                self._say(f"{row.run.name}: could not be started: {error}")
                free.insert(0, slot)
                continue
            self.active[slot] = row, child
            row.status = "running"
            row.note = f"from {child.checkpoint.name}" if child.checkpoint else ""
            device = f" on device {self.devices[slot % len(self.devices)]}" if self.devices else ""
            self._say(f"{row.run.name}: {'resumed ' + row.note if row.note else 'started'}{device}")

    def _collect(self) -> None:
        """Takes note of the runs that have ended."""
        for slot, (row, child) in list(self.active.items()):
            row.seconds = child.seconds
            outcome = child.poll(stopped=bool(self.signals))
            if outcome is None:
                continue
            del self.active[slot]
            row.status, row.note = outcome.status, outcome.error
            name = row.run.name
            if outcome.status == "finished":
                value = row.run.metric(self.metric)
                shown = "" if value is None else f", {self.metric} {value:.4f}"
                self._say(f"{name}: finished in {time_text(child.seconds)}{shown}")
            elif outcome.status == "failed":
                self._say(f"{name}: failed with {outcome.error} (all of it: {row.run.stderr_path})")
            else:
                self._say(f"{name}: stopped, not finished; the same command goes on with it")

    def _stop(self) -> None:
        """Ends the children that are left: asked once, then killed."""
        if not self.active:
            return
        self._say(f"stopping {len(self.active)} run{'s' if len(self.active) > 1 else ''}")
        asked, noted = time.monotonic(), len(self.signals)
        for _, child in self.active.values():
            child.stop()
        while self.active:
            if time.monotonic() - asked > STOP_TIMEOUT_S or len(self.signals) > noted:
                for _, child in self.active.values():
                    child.kill()
            self._collect()
            time.sleep(POLL_S / 4)

    def _keep(self, row: ProgressRow) -> None:
        row.status = "finished" if row.status == "locked" else "skipped"
        row.note, row.seconds = "", row.run.summary().get("wall_s")

    def _environment(self, slot: int) -> dict[str, str]:
        environment = dict(self.environment)
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        if self.jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(max(1, available_cores() // self.jobs))
        return environment

    def _say(self, line: str) -> None:
        self.console.print(f"[{time_text(time.monotonic() - self._began)}] {line}", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def _live(self) -> Iterator[Callable[[], None]]:
        """Keeps the table on the screen of a terminal, without a thread: children are forked from here."""
        if not self.console.is_terminal:
            yield lambda: None
            return
        with Live(
            get_renderable=lambda: progress_table(self.rows, self.metric, live=True),
            console=self.console,
            auto_refresh=False,
            transient=True,
        ) as live:
            yield live.refresh

    @contextlib.contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """Notes stop signals instead of raising in the middle of something."""

        def note(number: int, frame: FrameType | None) -> None:
            self.signals.append(number)

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants it ignored
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def available_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
