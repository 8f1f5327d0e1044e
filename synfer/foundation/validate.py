"""The one form in which a setting is refused: one's own, that of a checkpoint, or one of another library's config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def check_setting(fine: bool, key: str, found: Any, expected: str, group: str = "model") -> None:
    """Raises a ValueError that names key, value and what was expected, unless ``fine``.

    Args:
        fine: whether the value will do.
        key: of the setting within its group: "flip".
        found: its value.
        expected: what would do: "a share in [0, 1]".
        group: of the command line that the setting belongs to.
    """
    if not fine:
        raise ValueError(f"{group}.{key}: found {found}, expected {expected}")


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


def check_config_keys(setting: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Checks the keys of one config, which other libraries would take with a misspelt key, dropping it in silence.

    Args:
        setting: name of the setting, for the error.
        given: its keys; those that begin with "_" are notes of the library that wrote the config.
        known: keys that mean something there.

    Raises:
        ValueError: a key that is not known.
    """
    names = sorted(name for name in known if name not in ("self", "kwargs") and not name.startswith("_"))
    unknown = sorted({name for name in given if not name.startswith("_")} - set(names))
    if unknown:
        raise ValueError(f"{setting}: found unknown key '{unknown[0]}', expected one of {', '.join(names)}")
