"""What every table of action units does: give those of pictures by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from datamodules.au_tables.au_source import AUSource

_NAME = re.compile(r"au[_ ]?([lr]?)[_ ]?0*([1-9]\d*)(_[a-z]+)?")
_LIKE_ONE = re.compile(r"au[_ ]?[lr]?[_ ]?\d")
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


@runtime_checkable
class DescribedTable(AUTable, Protocol):
    """A table that says where it comes from and which of its rows are asked for; one of your own need not.

    Attributes:
        source: who wrote it, and what its columns are.
    """

    source: AUSource

    def has(self, ids: Sequence[str]) -> np.ndarray:
        """Returns bool (n,): whether there is a row for each picture, with a face in it or not."""
        ...

    def never_read(self) -> list[str]:
        """Returns the names of the rows that no picture has asked for so far."""
        ...


class UnitRows(NamedTuple):
    """Rows of action units as they come out of files.

    Attributes:
        ids: N names of pictures: sample ids, paths or file names.
        values: float32 (N, A) in [0, 1], NaN = unknown.
        source: who wrote them, and their A columns.
    """

    ids: list[str]
    values: np.ndarray
    source: AUSource


class NamedRows:
    """A table that is known as a whole: rows of action units by the name of their picture.

    A sample is found by its id; else by its id without the ending of a file; else where its path is the end of that in
    the table, or the other way round; else by the name of its file alone, without folder and ending.

    Args:
        where: file or folder, for errors.
        names: A action units.
        ids: N names of pictures: sample ids, paths or file names.
        values: float32 (N, A) in [0, 1], NaN = unknown.
        source: who wrote the table; None = unknown.

    Attributes:
        names: the A action units.
        source: as given.

    Raises:
        ValueError: no row, an action unit or a picture twice, or a value outside [0, 1].
    """

    def __init__(
        self, where: str, names: Sequence[str], ids: Sequence[str], values: np.ndarray, source: AUSource | None = None
    ) -> None:
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
        self.names, self._where, self._values, self._ids = tuple(names), where, values, list(ids)
        self.source = source or AUSource("unknown tool", ())
        self._asked = np.zeros(len(ids), dtype=bool)
        self._whole, self._bare, self._stems = (_by_key(map(key, ids)) for key in (str, _without_ending, _stem))
        self._ends: dict[int, dict[str, int]] = {}

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
                f"{self._where}: found none of {len(ids)} pictures by name (its first is '{self._ids[0]}', that of the "
                f"data '{ids[0] if len(ids) else ''}'), expected sample ids or names of files"
            )
        one, times = np.unique(row[found], return_counts=True)
        if (times > 1).any():
            twice = found[np.flatnonzero(row[found] == one[times > 1][0])]
            raise ValueError(
                f"{self._where}: found one row for '{ids[twice[0]]}' and '{ids[twice[1]]}', which differ in folder or "
                "ending alone, expected names with their folders"
            )
        self._asked[row[found]] = True
        values = np.full((len(ids), len(self.names)), np.nan, dtype=np.float32)
        values[found] = self._values[row[found]]
        return values

    def has(self, ids: Sequence[str]) -> np.ndarray:
        """Returns bool (n,): whether there is a row for each picture, with a face in it or not."""
        return np.array([self._row_of(name) >= 0 for name in ids], dtype=bool)

    def never_read(self) -> list[str]:
        """Returns the names of the rows that no picture has asked for so far."""
        return [self._ids[row] for row in np.flatnonzero(~self._asked).tolist()]

    def _row_of(self, name: str) -> int:
        for row in self._candidates(name):
            if row == _SEVERAL:
                raise ValueError(
                    f"{self._where}: found several rows for '{name}', which differ in folder or ending alone, expected "
                    "names with their folders"
                )
            if row >= 0:
                return row
        return -1

    def _candidates(self, name: str) -> Iterator[int]:
        """Yields the row of a picture by ever less of its name, -1 where there is none."""
        yield self._whole.get(name, -1)
        bare = _without_ending(name)
        yield self._whole.get(bare, -1)  # which may have a point of its own: "photo.1" of "photo.1.jpg"
        yield self._bare.get(bare, -1)
        parts = bare.split("/")
        if len(parts) > 1:
            if len(parts) not in self._ends:
                ends = ("/".join(known.split("/")[-len(parts) :]) for known in map(_without_ending, self._ids))
                self._ends[len(parts)] = _by_key(ends)
            yield self._ends[len(parts)].get(bare, -1)
        for start in range(1, len(parts) - 1):
            yield self._bare.get("/".join(parts[start:]), -1)
        yield self._stems.get(_stem(name), -1)


def action_unit_of(column: str) -> str | None:
    """Returns the name of the action unit of a column ("au_01" → "AU1", "AUL12" stays); None where it is of none."""
    name, ending = split_column(column)
    return None if ending else name


def split_column(column: str) -> tuple[str | None, str]:
    """Returns action unit and ending of the name of a column: "AU01_r" → "AU1" and "_r"; None where it is of none."""
    match = _NAME.fullmatch(column.strip().casefold())
    return (None, "") if match is None else (f"AU{match[1].upper()}{match[2]}", match[3] or "")


def looks_like_one(column: str) -> bool:
    """Whether the name of a column begins as that of an action unit does."""
    return _LIKE_ONE.match(column.strip().casefold()) is not None


def _by_key(keys: Iterable[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        rows[key] = _SEVERAL if key in rows else row
    return rows


def _without_ending(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path.with_suffix("")) if path.name else name


def _stem(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).stem
