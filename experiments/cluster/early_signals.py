"""Signals of a scheduler before the first step and after the last one: the process ends, and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

_NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ends what is inside with exit code 128 + number at a signal of a scheduler, so that a run is recorded.

    A fit listens itself once it trains: then it is saved first. Signals to which this process was started deaf, or that
    somebody else listens to, are left as they are; so are they in a thread.

    Raises:
        SystemExit: at a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _NUMBERS if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def deaf_from_here() -> None:
    """Has the last steps of a process done, whoever is in a hurry: a scheduler has SIGKILL in the end."""
    if threading.current_thread() is threading.main_thread():
        for number in _NUMBERS:
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: Any) -> None:
    if int(os.environ.get("LOCAL_RANK") or 0) == 0:
        # Straight to stderr: the signal may have come in the middle of a print, which cannot be entered twice.
        with contextlib.suppress(OSError):
            os.write(2, f"{signal.Signals(number).name}: the run ends here, before or after its steps\n".encode())
    raise SystemExit(128 + number)
