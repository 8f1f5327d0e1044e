"""Which rank of a run has ended, and how: what the others see is a lost connection alone."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence


def how_ranks_ended(ranks: Sequence[subprocess.Popen]) -> str:
    """Returns one line about the ranks that this process has started.

    Args:
        ranks: processes of the local ranks 1, 2, …
    """
    ended = {number: rank.poll() for number, rank in enumerate(ranks, 1)}
    lines = [f"rank {number} {_how(code)}" for number, code in ended.items() if code]
    if lines:
        return "; ".join(lines)
    gone = [str(number) for number, code in ended.items() if code == 0]
    if gone:
        return f"rank {', '.join(gone)} ended early without an error (exit code 0), the others were still at work"
    return (
        "the connection to another rank was lost, while the ranks of this machine are alive: one on another machine "
        "ended, or the network broke"
    )


def _how(code: int) -> str:
    if code > 0:
        return f"ended early with exit code {code}, its own error stands above"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = {
        "SIGKILL": " (by hand, or by the system where memory runs out)",
        "SIGSEGV": " (a fault inside a library)",
        "SIGBUS": " (a fault inside a library, or no room left in shared memory)",
        "SIGABRT": " (given up by a library, whose message stands above)",
    }
    return f"was ended by {name}{why.get(name, '')}"
