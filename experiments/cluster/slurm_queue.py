"""What SLURM says of jobs that were submitted."""

from __future__ import annotations

import getpass
import subprocess
from typing import Literal

_TIMEOUT_S = 30
_WAITS = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "SUSPENDED")

QueueState = Literal["pending", "running"]


def queued_jobs() -> dict[str, QueueState] | None:
    """Returns the jobs of this user that SLURM has in its queue; tasks of an array each by its own number (``12_3``).

    Returns:
        None where SLURM is not here, or does not answer.
    """
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.strip().partition("|") for line in done.stdout.splitlines() if "|" in line)
    return {job: "pending" if state in _WAITS else "running" for job, _, state in pairs}
