"""The one form in which the data module refuses a setting."""

from __future__ import annotations

from collections.abc import Mapping


def check_range(name: str, value: object, is_right: bool, expected: str) -> None:
    """Raises a ValueError that names key, value and what was expected, unless ``is_right``."""
    if not is_right:
        raise ValueError(f"data.{name}={value}: expected {expected}")


def check_counts(values: Mapping[str, int | None]) -> None:
    """Raises a ValueError for the first of these settings that is below 1; None is nothing to check."""
    for name, value in values.items():
        check_range(name, value, value is None or value >= 1, "at least 1")
