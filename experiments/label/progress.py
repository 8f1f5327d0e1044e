"""How far a long work has come, on a line that renews itself on a terminal, and line by line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Counts what is done and says so.

    Args:
        total: of what is to be done; None = not known.
        unit: what is counted: "pictures".
        every: outside of a terminal, a line after so many.
        stream: where to.
    """

    def __init__(self, total: int | None, unit: str, every: int = 1000, stream: TextIO | None = None) -> None:
        self.total, self.unit, self.every = total, unit, every
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.done = 0
        self._started = time.perf_counter()
        self._shown = 0.0

    def add(self, count: int) -> None:
        """Counts more."""
        before, self.done = self.done, self.done + count
        now = time.perf_counter()
        if self.live and now - self._shown > 0.2:
            self._shown = now
            self._print(f"\r\x1b[2K{self.line()}")
        elif not self.live and self.done // self.every > before // self.every:
            self._print(f"{self.line()}\n")

    def interrupt(self, line: str) -> None:
        """Prints another line, above that of a terminal."""
        self._print(f"\r\x1b[2K{line}\n" if self.live else f"{line}\n")

    def end(self) -> None:
        """Leaves the terminal's line."""
        if self.live:
            self._print("\r\x1b[2K")

    @property
    def rate(self) -> float:
        """What is done in a second."""
        return self.done / max(time.perf_counter() - self._started, 1e-9)

    def line(self) -> str:
        """Returns count, rate and time left."""
        if self.total is None:
            return f"{self.done:,} {self.unit}, {self.rate:.1f}/s"
        left = round((self.total - self.done) / max(self.rate, 1e-9))
        return f"{self.done:,} of {self.total:,} {self.unit}, {self.rate:.1f}/s, {left // 60}:{left % 60:02d} left"

    def _print(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
