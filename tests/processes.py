"""Processes that tests start: waited for as long as they get on, however busy the machine is."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

IDLE_S = 120.0
"""A process that has used no CPU for so long, its children included, hangs."""


def run_to_end(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, and returns its exit code and what it said."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    process = subprocess.Popen(command, **settings)
    said, error = ended(process)
    return subprocess.CompletedProcess(command, process.returncode, said, error)


def ended(process: subprocess.Popen[str], idle_s: float = IDLE_S) -> tuple[str, str]:
    """Waits for a process, and returns what it wrote to stdout and stderr.

    Raises:
        AssertionError: it hangs; it has been ended with all its children.
    """
    used, since = 0.0, time.monotonic()
    while True:
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            now = sum(cpu_seconds(pid) for pid in family(process.pid))
            if now > used + 0.02:
                used, since = now, time.monotonic()
            elif time.monotonic() - since > idle_s:
                for pid in family(process.pid):
                    os.kill(pid, signal.SIGKILL)
                said, error = process.communicate()
                raise AssertionError(
                    f"idle for {idle_s:g} s: {process.args}\n{said[-1000:]}\n{error[-3000:]}"
                ) from None


def family(pid: int) -> list[int]:
    """Returns a process and all that it has started and that are alive (elsewhere than on Linux itself alone)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        fields = _fields(entry)
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = [pid]
    for each in found:  # grows while it is read
        found += parents.get(each, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Returns the CPU seconds that a process has used; 0 where it is gone."""
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _fields(stat: Path) -> list[str]:
    """Returns the fields of proc(5) "stat" after the command, whose brackets may hold spaces."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []
