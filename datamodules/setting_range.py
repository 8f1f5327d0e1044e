"""The one form in which the data module refuses a setting."""

from __future__ import annotations


def check_range(name: str, value: object, is_right: bool, expected: str) -> None:
    """Raises a ValueError that names key, value and what was expected, unless ``is_right``."""
    if not is_right:
        raise ValueError(f"data.{name}={value}: expected {expected}")
