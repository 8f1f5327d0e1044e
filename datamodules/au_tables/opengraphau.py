"""Action units as OpenGraphAU gives them: a vector without names (Luo et al., "ME-GraphAU", arXiv 2205.01782)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datamodules.au_tables.au_source import AUColumn, AUScale, AUSource
from datamodules.au_tables.au_table import NamedRows, UnitRows
from datamodules.au_tables.picture_names import PictureNames
from datamodules.au_tables.table_files import table_files
from synfer.faces.action_units import ACTION_UNITS
from synfer.foundation.file_reading import plain_reason

VECTOR_FILES = (".npy", ".npz", ".csv")
"""Endings of the files of a folder that are read."""

_WIDTH = len(ACTION_UNITS)
_EXPECTED = (
    f"expected the {_WIDTH} numbers of OpenGraphAU in its order (27 main action units, then left and right of 7), as "
    "its second stage gives them"
)
_SCALE = AUScale("probability")


class OpenGraphAUTable(NamedRows):
    """Reads vectors of OpenGraphAU that were saved one by one or together.

    It writes no table and no names, so a vector is known by its length, 41, alone: 27 main action units, then left and
    right of seven (:data:`synfer.faces.action_units.ACTION_UNITS`). How sure it is that a unit acts, in [0, 1]; its log
    prints the same times 100, which is refused.

    Forms: a folder with one ``.npy`` or ``.csv`` per picture, called as the picture; an ``.npz`` with one array per
    picture, named as it, or with an array (N, 41) and an array of N names; a ``.csv`` without header, name and 41
    numbers per line; or, where ``id_template`` makes names of the numbers of the rows, an array (N, 41).

    Args:
        path: the file or the folder.
        id_column: None; there are no columns with names.
        id_template: name of the picture of a row (:class:`datamodules.au_tables.picture_names.PictureNames`).

    Attributes:
        names: the 41 action units.

    Raises:
        ValueError: another number of values, a value outside [0, 1], no names, or a picture twice.
    """

    def __init__(self, path: Path, id_column: str | None = None, id_template: str | None = None) -> None:
        if id_column is not None:
            raise ValueError(f"data.au_table.id_column: found '{id_column}' for vectors without columns, expected null")
        names = None if id_template is None else PictureNames(id_template)
        if names is not None and (names.of_frames or "name" in names.parts):
            raise ValueError(
                f"data.au_table.id_template: found '{id_template}' for vectors without columns, expected {{row}} or "
                "{file}"
            )
        ids: list[str] = []
        values: list[np.ndarray] = []
        for file in table_files(path, VECTOR_FILES):
            own = file.relative_to(path).with_suffix("").as_posix() if path.is_dir() else file.stem
            found = list(_vectors(file))
            for row, (where, name, vector) in enumerate(found):
                ids.append(_name(where, name, names, row, own, len(found)))
                values.append(_checked(where, vector))
        source = AUSource("OpenGraphAU", tuple(AUColumn(n, f"{i}", _SCALE) for i, n in enumerate(ACTION_UNITS)))
        rows = UnitRows(ids, np.array(values, dtype=np.float32).reshape(len(ids), _WIDTH), source)
        super().__init__(str(path), ACTION_UNITS, *rows)


def _name(where: str, name: str | None, names: PictureNames | None, row: int, own: str, rows: int) -> str:
    if names is not None:
        return names.name(row=row, file=own)
    if name is not None:
        return name
    if rows > 1:
        raise ValueError(
            f"{where}: found {rows} vectors without names, expected one per file, or "
            "data.au_table.id_template such as 'fer2013-{row}'"
        )
    return own


def _checked(where: str, vector: np.ndarray) -> np.ndarray:
    if vector.shape != (_WIDTH,):
        raise ValueError(f"{where}: found {vector.size} numbers, {_EXPECTED}")
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero((vector < 0) | (vector > 1))
    if len(wrong):
        raise ValueError(
            f"{where}: {ACTION_UNITS[wrong[0]]} is {vector[wrong[0]]:g} (and {len(wrong) - 1} more), expected numbers "
            "in [0, 1] (OpenGraphAU's log prints them times 100)"
        )
    return vector


def _vectors(file: Path) -> Iterator[tuple[str, str | None, np.ndarray]]:
    """Yields, for each vector of a file: where it is, its name or None, and the vector."""
    with file.open("rb") as opened:
        start = opened.read(6)
    if not start.startswith((b"\x93NUMPY", b"PK")):
        yield from _lines(file)
        return
    try:
        loaded = np.load(file, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # whatever numpy and zipfile say of a damaged file, or of one with objects inside
        raise ValueError(f"{file}: found no arrays of numbers ({plain_reason(error, 120)}), {_EXPECTED}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError(f"{file}: found a zip file or a spreadsheet, expected arrays (.npz), or CSV or Parquet")
    texts = [array for array in arrays.values() if array.dtype.kind in "US"]
    tables = {name: array for name, array in arrays.items() if array.dtype.kind in "fiu"}
    if len(texts) + len(tables) != len(arrays) or not tables:
        odd = next((f"'{name}' of {array.dtype}" for name, array in arrays.items() if name not in tables), "no array")
        raise ValueError(f"{file}: found {odd}, {_EXPECTED}")
    if texts:
        table = next(iter(tables.values()))
        if len(texts) > 1 or len(tables) > 1 or table.ndim != 2 or texts[0].shape != (len(table),):
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ValueError(f"{file}: found {shapes}, expected one array (N, {_WIDTH}) and one of N names")
        names = [text.decode() if isinstance(text, bytes) else str(text) for text in texts[0].tolist()]
        yield from ((f"{file} row {row}", names[row], vector) for row, vector in enumerate(table))
        return
    for name, array in tables.items():
        where = f"{file} '{name}'" if name else str(file)
        if array.ndim == 1:
            yield where, name or None, array
        elif array.ndim == 2 and len(tables) == 1:
            yield from ((f"{where} row {row}", None, vector) for row, vector in enumerate(array))
        else:
            raise ValueError(f"{where}: found an array {array.shape}, {_EXPECTED}")


def _lines(file: Path) -> Iterator[tuple[str, str | None, np.ndarray]]:
    """Yields the vectors of a text file: numbers with commas or blanks between them, a name in front or none."""
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        cells = split_line(line)
        if cells[1:] == [str(i) for i in range(1, len(cells))] or cells[1:] == [str(i) for i in range(len(cells) - 1)]:
            raise ValueError(
                f"{file} line {number}: found a header that counts the columns, expected none (pandas: header=False)"
            )
        named = len(cells) == _WIDTH + 1
        where = f"{file} line {number}"
        try:
            vector = np.array([float(cell) for cell in cells[named:]])
        except ValueError as error:
            raise ValueError(f"{where}: found '{line.strip()[:60]}', {_EXPECTED}") from error
        yield where, cells[0] if named else None, vector


def split_line(line: str) -> list[str]:
    """Returns the cells of a line of numbers, with commas or blanks between them."""
    return [cell.strip() for cell in line.split(",")] if "," in line else re.split(r"\s+", line.strip())


def has_vectors(file: Path) -> bool:
    """Whether a file holds arrays, or begins with a line of numbers where tables have their header.

    Raises:
        ValueError: a line of another number of them.
    """
    with file.open("rb") as opened:
        start = opened.read(6)
        if start.startswith((b"\x93NUMPY", b"PK")):
            return True
        if start.startswith((b"PAR1", b"\x80")):
            return False
        first = (start + opened.readline(1_000_000)).decode("utf-8-sig", "replace").splitlines()[:1]
    cells = split_line(first[0]) if first and first[0].strip() else []
    found = len(cells) > 1 and all(map(_is_number, cells[1:]))
    numbers = len(cells) - (not _is_number(cells[0])) if found else 0
    if found and numbers not in (_WIDTH, _WIDTH + 1):
        raise ValueError(
            f"{file} line 1: found no header and {numbers} numbers ('{first[0][:40]}'), expected names such as AU12 in "
            f"a header, or {_WIDTH} numbers of OpenGraphAU"
        )
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
