"""Durations as people read them."""

from __future__ import annotations

import math


def time_text(seconds: float) -> str:
    """Returns seconds ≥ 0 as "m:ss", "h:mm:ss" or "2 d 3:04:05"; "?" for what is not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours or days else f"{minutes}:{rest:02d}"
    return f"{days} d {clock}" if days else clock
