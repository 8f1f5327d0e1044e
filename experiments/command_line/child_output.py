"""What a program that we started says of its end: its exit code, and the line that tells why."""

from __future__ import annotations

import re
import signal
from pathlib import Path


def last_error_line(path: Path, offset: int = 0) -> str:
    """Returns the last line that starts with "error", or else the last line, of what follows ``offset`` bytes."""
    try:
        with path.open("rb") as file:
            file.seek(max(offset, path.stat().st_size - 1_000_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return "it printed nothing"
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error")]
    return (errors or lines or ["it printed nothing"])[-1]


def exit_text(code: int) -> str:
    """Returns an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"exit code {code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"exit code {code}"
