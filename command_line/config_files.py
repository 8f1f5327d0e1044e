"""The files behind ``--config``: read once before the parser does, for an error that names file and place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from datamodules.file_reading import FileError, reading

_NAMES: dict[type, str] = {list: "a list", str: "text"}


def check_config_files(args: Sequence[str]) -> None:
    """Checks that the config files of a command line are YAML settings; a missing one is left to the parser.

    Args:
        args: command line without the program's name.

    Raises:
        ValueError: a file in another encoding, no YAML, or something other than settings.
    """
    for word, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c"):
            path = Path(value if equals else following)
            if path.is_file():
                _check(path)


def _check(path: Path) -> None:
    expected = "settings as YAML (UTF-8)"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with reading("config", path, expected):
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=loader)
    if content is None:
        raise FileError(f"config '{path}': found no settings in it, expected {expected}")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        found = "settings without names" if isinstance(content, dict) else _NAMES.get(type(content), "a single value")
        raise FileError(f"config '{path}': found {found}, expected {expected}, as name: value")
