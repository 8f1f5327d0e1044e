"""Where progress is shown: a terminal gets a bar that moves, a log gets lines at growing distances."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from synfer.runs.time_text import time_text

REFRESH_S = 0.2
"""A terminal is drawn anew at most this often: each time costs about a millisecond."""

FIRST_LINE_S, LONGEST_WAIT_S = 10.0, 600.0
"""When a log gets its first line on something that takes long, and the longest time between two lines."""

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")


class Beat:
    """Says when a log is due another line: after 10 s, then whenever a quarter more time has gone, at most 10 min.

    So a short wait stays short in the log, and a day of waiting makes some 150 lines.
    """

    def __init__(self, now: float) -> None:
        self._began, self._next = now, now + FIRST_LINE_S

    def is_due(self, now: float) -> bool:
        """Whether a line is due; asking takes it."""
        if now < self._next:
            return False
        self._next = now + longest_silence(now - self._began)
        return True


def longest_silence(elapsed: float) -> float:
    """Returns how many seconds a log may stay silent after so many."""
    return min(max(elapsed / 4, FIRST_LINE_S), LONGEST_WAIT_S)


class Task:
    """Something with a known end: faces to make, batches to look at.

    Args:
        name: what is done, such as "filling the pool".
        total: how many there are; infinite = nobody knows.
        unit: what they are, in the plural.
        show: called with every change.
        done: how many were there before; they do not count into the rate.
    """

    def __init__(self, name: str, total: float, unit: str, show: Callable[[Task], None], done: int = 0) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, float(done)
        self.began = time.monotonic()
        self.beat = Beat(self.began)
        self._before, self._show = done, show

    def advance(self, count: float = 1) -> None:
        """Counts what has been done since."""
        self.done += count
        self._show(self)

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def figures(self, is_over: bool = False) -> str:
        """Returns "112/224 faces, 14.2/s, 0:08 left", at the end "224 faces in 0:16, 14.1/s"."""
        seconds, done = self.seconds, int(self.done)
        rate = (self.done - self._before) / max(seconds, 1e-9)
        speed = f"{rate:.3g}/s" if 0.1 <= rate < 999.5 or rate == 0 else f"{rate:.0f}/s" if rate else ""
        if rate < 0.1 and rate:
            speed = f"{1 / rate:.3g} s each"
        if is_over:
            return f"{done} {self.unit} in {time_text(seconds)}" + (f", {speed}" if seconds >= 1 else "")
        if self.total == float("inf"):
            return f"{done} {self.unit}, {speed}"
        left = f", {time_text((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        return f"{done}/{int(self.total)} {self.unit}, {speed}{left}"


class Display:
    """Shows nothing: of the ranks beside the first."""

    is_live = False

    def say(self, line: str) -> None:
        """Shows a line for good."""

    @contextlib.contextmanager
    def task(
        self, name: str, total: float, unit: str, done: int = 0, tells_end: bool = True, brief: bool = False
    ) -> Iterator[Task]:
        """Shows how far something is while it lasts.

        Args:
            name: what is done.
            total: how many there are.
            unit: what they are, in the plural.
            done: how many were there before.
            tells_end: whether a line says at its end how long it took.
            brief: whether only a terminal shows it (validations: a log has their metrics).
        """
        yield Task(name, total, unit, lambda task: None, done)

    def run(self, share: float, line: Callable[[], str]) -> None:
        """Shows the whole run: how much of it is done, in [0, 1], and its figures, made only where they are shown."""

    def stop(self) -> None:
        """Leaves the terminal as it was."""


class LogDisplay(Display):
    """Writes whole lines, for a file or a pipe."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._began: float | None = None
        self._said = 0.0

    def say(self, line: str) -> None:
        """Writes a line at once: whoever follows a log waits for it."""
        self._said = time.monotonic()
        with contextlib.suppress(OSError, ValueError):  # the reader of a pipe may have gone; training goes on
            print(line, file=self._file or sys.stdout, flush=True)

    @contextlib.contextmanager
    def task(
        self, name: str, total: float, unit: str, done: int = 0, tells_end: bool = True, brief: bool = False
    ) -> Iterator[Task]:
        """Writes a line now and then, and one at the end."""

        def show(task: Task) -> None:
            if not brief and task.done < task.total and task.beat.is_due(time.monotonic()):
                self.say(f"{task.name}: {task.figures()}")

        task = Task(name, total, unit, show, done)
        yield task
        if tells_end:
            self.say(f"{name}: {task.figures(is_over=True)}")

    def run(self, share: float, line: Callable[[], str]) -> None:
        """Writes a line where nothing else has been written for long."""
        now = time.monotonic()
        if self._began is None:
            self._began = self._said = now
        if now - self._said >= longest_silence(now - self._began):
            self.say(line())


class TerminalDisplay(Display):
    """Draws a bar for the run and one for what it is at, below lines that stay.

    No thread draws: data workers are forked from here, and a lock that a thread held would stay locked in them.
    """

    is_live = True

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._progress: Progress | None = None
        self._run: TaskID | None = None
        self._drawn = 0.0
        self._streams: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def say(self, line: str) -> None:
        """Writes a line above the bars."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(
        self, name: str, total: float, unit: str, done: int = 0, tells_end: bool = True, brief: bool = False
    ) -> Iterator[Task]:
        """Draws a bar while it lasts."""
        progress = self._started()
        known = total if total != float("inf") else None
        bar = progress.add_task(name, total=known, completed=done, figures="")

        def show(task: Task) -> None:
            if self._is_time() or task.done >= task.total:
                progress.update(bar, completed=task.done, figures=task.figures())
                progress.refresh()

        task = Task(name, total, unit, show, done)
        progress.refresh()
        try:
            yield task
        finally:
            progress.remove_task(bar)
            progress.refresh()
        if tells_end:
            self.say(f"{name}: {task.figures(is_over=True)}")

    def run(self, share: float, line: Callable[[], str]) -> None:
        """Draws the bar of the whole run."""
        if self._run is not None and not self._is_time():
            return
        progress = self._started()
        if self._run is None:
            self._run = progress.add_task("training", total=1.0, figures="")
        progress.update(self._run, completed=min(share, 1.0), figures=line())
        progress.refresh()

    def stop(self) -> None:
        """Takes the bars away; the lines stay."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._run = None
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams = []

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._drawn < REFRESH_S:
            return False
        self._drawn = now
        return True

    def _started(self) -> Progress:
        if self._progress is None:
            cut = {"no_wrap": True, "overflow": "ellipsis"}
            self._progress = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                BarColumn(bar_width=16),
                TextColumn("{task.fields[figures]}", table_column=Column(ratio=1, **cut), markup=False),  # type: ignore[arg-type]
                console=self.console,
                auto_refresh=False,
                transient=True,
                expand=True,
            )
            self._progress.start()
            # Loggers that were made earlier hold the terminal itself, and would write into the middle of a bar.
            for name in ("", *_LOGGERS):
                for handler in logging.getLogger(name).handlers:
                    if isinstance(handler, logging.StreamHandler) and handler.stream in (
                        sys.__stderr__,
                        sys.__stdout__,
                    ):
                        self._streams.append((handler, handler.stream))
                        handler.setStream(sys.stderr)
        return self._progress


def choose_display(wanted: bool, is_first_rank: bool, file: TextIO | None = None) -> Display:
    """Returns where progress is shown.

    Args:
        wanted: whether a moving bar is wanted where it can be.
        is_first_rank: the others show nothing.
        file: where to; None = stdout.
    """
    if not is_first_rank:
        return Display()
    file = file or sys.stdout
    console = Console(file=file, highlight=False)
    if wanted and console.is_terminal and not console.is_dumb_terminal:
        return TerminalDisplay(console)
    return LogDisplay()
