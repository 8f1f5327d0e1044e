"""What a process can say of itself: CPU time, commit, versions of packages."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "synfer",
    "torch",
    "torchvision",
    "lightning",
    "diffusers",
    "transformers",
    "timm",
    "torchmetrics",
    "peft",
    "jsonargparse",
)
"""Packages whose versions are recorded."""


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and its data workers, those still alive included (on Linux).

    Other ranks that this process launched are not counted: each rank counts itself.
    """
    total = time.process_time()
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    for worker in multiprocessing.active_children():
        try:
            # Fields 14 and 15 of proc(5) "stat"; the command in brackets may hold spaces.
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def git_state() -> dict[str, Any] | None:
    """Returns commit and whether files differ from it; None where the code is not in a git repository."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
