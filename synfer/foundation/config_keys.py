"""A check of configs that other libraries would take with a misspelt key, dropping it in silence."""

from __future__ import annotations

from collections.abc import Iterable


def check_config_keys(setting: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Checks the keys of one config.

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
