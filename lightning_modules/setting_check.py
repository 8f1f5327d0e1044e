"""The one form in which a module refuses a setting."""

from __future__ import annotations

from typing import Any


def check_setting(fine: bool, key: str, found: Any, expected: str) -> None:
    """Raises a ValueError that names key, value and what was expected, unless ``fine``."""
    if not fine:
        raise ValueError(f"model.{key}: found {found}, expected {expected}")
