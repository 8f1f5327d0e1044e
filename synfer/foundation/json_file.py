"""JSON files: read with an error of one line, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import FileError, reading

_NAMES = {
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def read_json(path: str | Path, kind: str, expected: str = "the JSON object that synfer wrote") -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
        path: the file.
        kind: what it should be, for errors: "record of a synthetic set".
        expected: what should be in it, for errors.

    Raises:
        FileNotFoundError: no file there.
        FileError: it cannot be read, or holds something else.
    """
    with reading(kind, path, expected):
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    if not isinstance(found, dict):
        raise FileError(f"{kind} '{path}': found {_NAMES.get(type(found), 'a value')}, expected {expected}")
    return found


def read_json_if_whole(path: str | Path) -> dict[str, Any]:
    """Returns the object in a JSON file; {} where there is none, or none yet: another process may be at it."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: Any, default: Callable[[Any], Any] | None = None) -> Path:
    """Writes a JSON file with an indent of two, whole or not at all; missing folders are made.

    Args:
        path: the file.
        content: plain types.
        default: what to write of anything else, such as ``str``; None = that is an error.

    Returns:
        The file.

    Raises:
        TypeError: something that is no plain type, without ``default``.
    """
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=default) + "\n", encoding="utf-8")
    return path
