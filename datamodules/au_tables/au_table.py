"""What every table of action units does: give those of pictures by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np

_NAME = re.compile(r"au[_ ]?([lr]?)[_ ]?0*([1-9]\d*)")
_SEVERAL = -2


class AUTable(Protocol):
    """Action units of pictures.

    Attributes:
        names: A action units, each at most once, as the project spells them ("AU12", "AUL12").
    """

    names: tuple[str, ...]

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the action units of n pictures: float32 (n, A) in [0, 1], NaN = unknown.

        Args:
            ids: sample ids.

        Raises:
            ValueError: none of the pictures is known, or it is not clear which row belongs to one.
        """
        ...


class NamedRows:
    """A table that is known as a whole: rows of action units by the name of their picture.

    A sample is found by its id; else by its id without the ending of a file; else by the name of its file alone,
    without folder and ending.

    Args:
        where: file or folder, for errors.
        names: A action units.
        ids: N names of pictures: sample ids, paths or file names.
        values: float32 (N, A) in [0, 1], NaN = unknown.

    Raises:
        ValueError: no row, an action unit or a picture twice, or a value outside [0, 1].
    """

    def __init__(self, where: str, names: Sequence[str], ids: Sequence[str], values: np.ndarray) -> None:
        if not len(ids):
            raise ValueError(f"{where}: found no row, expected action units of at least one picture")
        for what, words in (("action unit", names), ("picture", ids)):
            word, times = Counter(words).most_common(1)[0]
            if times > 1:
                raise ValueError(f"{where}: found {what} '{word}' {times} times, expected it once")
        with np.errstate(invalid="ignore"):
            wrong = np.argwhere((values < 0) | (values > 1))
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f"{where}: {names[column]} of '{ids[row]}' is {values[row, column]:g} (and {len(wrong) - 1} more), "
                "expected a number in [0, 1]"
            )
        self.names, self._where, self._values, self._first = tuple(names), where, values, ids[0]
        self._rows = [(shorten, _by_key(shorten, ids)) for shorten in (str, _without_ending, _stem)]

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the action units of n pictures: float32 (n, A) in [0, 1], NaN = unknown or not in the table.

        Args:
            ids: sample ids.

        Raises:
            ValueError: no picture is in the table, or two of them, or two rows of the table, have one name.
        """
        row = np.array([self._row_of(name) for name in ids], dtype=np.int64)
        found = np.flatnonzero(row >= 0)
        if not len(found):
            raise ValueError(
                f"{self._where}: found none of {len(ids)} pictures by name (its first is '{self._first}', that of the "
                f"data '{ids[0] if len(ids) else ''}'), expected sample ids or names of files"
            )
        one, times = np.unique(row[found], return_counts=True)
        if (times > 1).any():
            twice = found[np.flatnonzero(row[found] == one[times > 1][0])]
            raise ValueError(
                f"{self._where}: found one row for '{ids[twice[0]]}' and '{ids[twice[1]]}', which differ in folder or "
                "ending alone, expected names with their folders"
            )
        values = np.full((len(ids), len(self.names)), np.nan, dtype=np.float32)
        values[found] = self._values[row[found]]
        return values

    def _row_of(self, name: str) -> int:
        for shorten, rows in self._rows:
            row = rows.get(shorten(name), -1)
            if row == _SEVERAL:
                raise ValueError(
                    f"{self._where}: found several rows for '{name}', which differ in folder or ending alone, expected "
                    "names with their folders"
                )
            if row >= 0:
                return row
        return -1


def action_unit_of(column: str) -> str | None:
    """Returns the name of the action unit of a column ("au_01" → "AU1", "AUL12" stays); None where it is of none."""
    match = _NAME.fullmatch(column.strip().casefold())
    return None if match is None else f"AU{match[1].upper()}{match[2]}"


def _by_key(shorten: Callable[[str], str], ids: Sequence[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, name in enumerate(ids):
        key = shorten(name)
        rows[key] = _SEVERAL if key in rows else row
    return rows


def _without_ending(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
