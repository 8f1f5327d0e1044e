"""What people said of the faces of EmoNet-Face, out of the tables that hold it."""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from datamodules.readers.emonet_face.emotions import canonical_emotion
from datamodules.readers.emonet_face.judgement import Said
from datamodules.readers.reader import BadSamples

_TRUE, _FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")
_MOST = 7
"""The largest intensity."""


def yes_or_no(value: Any) -> float:
    """Returns 1 or 0.

    Raises:
        ValueError: neither.
    """
    word = str(value).strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise ValueError(f"found the value '{value}', expected True or False")
    return float(word in _TRUE)


def intensity(value: Any) -> float:
    """Returns a number from 0 to 7.

    Raises:
        ValueError: none, or outside.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= _MOST:
        raise ValueError(f"found the intensity '{value}', expected 0 to {_MOST}")
    return number


def read_binary(path: Path, bad: BadSamples) -> dict[str, Said]:
    """Returns picture → what was said of it, of ``binary.csv``: path, annotator, value, emotion, one answer a row."""
    found: dict[str, Said] = {}
    wrong: set[str] = set()
    for where, row in _rows(path, ("path", "annotator", "value", "emotion"), bad):
        name = row["path"]
        try:
            emotion = canonical_emotion(row["emotion"])
            if emotion is not None:
                _note(found.setdefault(name, {}), row["annotator"], emotion, yes_or_no(row["value"]))
        except ValueError as error:
            bad.add(f"{where}: {error}")
            wrong.add(name)
    return {name: said for name, said in found.items() if name not in wrong}


def read_hq(path: Path, bad: BadSamples) -> dict[str, Said]:
    """Returns picture → what people said of it, of ``hq.csv``: image, annotator, human, annotations.

    Rows of models (human False) are passed over.
    """
    found: dict[str, Said] = {}
    wrong: set[str] = set()
    for where, row in _rows(path, ("image", "annotator", "human", "annotations"), bad):
        name = Path(row["image"]).stem
        try:
            if yes_or_no(row["human"]):
                for emotion, value in emotions_in(_literal(row["annotations"]), intensity).items():
                    _note(found.setdefault(name, {}), row["annotator"], emotion, value)
        except ValueError as error:
            bad.add(f"{where}: {error}")
            wrong.add(name)
    return {name: said for name, said in found.items() if name not in wrong}


def said_in(text: str, read: Callable[[Any], float]) -> Said:
    """Returns what people said, of a cell with [{"human-1": {"Family|Emotion": 3, …}}, …], or one such dictionary.

    Raises:
        ValueError: another form.
    """
    value = _literal(text)
    said: Said = {}
    for of_some in value if isinstance(value, list) else [value]:
        if not isinstance(of_some, Mapping) or not all(isinstance(one, Mapping) for one in of_some.values()):
            raise ValueError(f"found '{text[:60]}', expected [{{annotator: {{emotion: value}}}}, …]")
        for annotator, told in of_some.items():
            for emotion, number in emotions_in(told, read).items():
                _note(said, str(annotator), emotion, number)
    if not said:
        raise ValueError(f"found '{text[:60]}', expected what at least one annotator said")
    return said


def emotions_in(told: Any, read: Callable[[Any], float]) -> dict[str, float]:
    """Returns emotion → what was said, by the names of the guide.

    Raises:
        ValueError: no such dictionary, an unknown emotion, or a value out of range.
    """
    if not isinstance(told, Mapping):
        raise ValueError(f"found {type(told).__name__}, expected a dictionary of emotions")
    named = ((canonical_emotion(str(name)), value) for name, value in told.items())
    return {name: read(value) for name, value in named if name is not None}


def _note(said: Said, annotator: str, emotion: str, value: float) -> None:
    of_one = said.setdefault(annotator, {})
    if of_one.get(emotion, value) != value:
        raise ValueError(f"found two answers of '{annotator}' about {emotion}, expected one")
    of_one[emotion] = value


def _literal(text: str) -> Any:
    """Returns the value that a cell spells as Python does; nothing in it is run."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"found '{text[:60]}', expected a dictionary or a list of them") from None


def _rows(path: Path, columns: tuple[str, ...], bad: BadSamples) -> Iterable[tuple[str, dict[str, str]]]:
    """Yields where each row stands and its values.

    Raises:
        ValueError: a column is missing.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file)
        for name in columns:
            if name not in (lines.fieldnames or ()):
                found = ", ".join(lines.fieldnames or ()) or "none"
                raise ValueError(f"{path}: found no column '{name}' ({found}), expected it")
        for row in lines:
            where = f"{path}, line {lines.line_num}"
            if any(row[name] is None for name in columns) or None in row:
                bad.add(f"{where}: found another number of cells than in the header, expected as many")
                continue
            yield where, {name: row[name].strip() for name in columns}
