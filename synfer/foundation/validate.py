"""The one form in which a module refuses a setting, its own or that of a checkpoint."""

from __future__ import annotations

from typing import Any


def check_setting(fine: bool, key: str, found: Any, expected: str) -> None:
    """Raises a ValueError that names key, value and what was expected, unless ``fine``."""
    if not fine:
        raise ValueError(f"model.{key}: found {found}, expected {expected}")


def check_same_settings(saved: dict[str, Any], config: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Raises a ValueError for settings other than a checkpoint's, where its weights would load all the same.

    Args:
        saved: settings in the checkpoint; those that it lacks are not compared.
        config: settings now.
        keys: which to compare.
    """
    for key in keys:
        if key in saved:
            check_setting(saved[key] == config[key], key, config[key], f"{saved[key]}, as in the checkpoint")
