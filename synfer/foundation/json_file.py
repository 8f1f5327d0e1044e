"""JSON files: read with an error of one line, or where there may be none; written whole or not at all."""

from __future__ import annotations

import json
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


def read_json_if_any(path: str | Path) -> dict[str, Any]:
    """Returns the object in a JSON file that may be missing, or half written by a program that was killed: then {}."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Writes an object into a JSON file, whole or not at all; what JSON does not know is written as text."""
    with atomic_write(Path(path)) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n")
