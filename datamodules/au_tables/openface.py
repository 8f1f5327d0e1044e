"""Action units as OpenFace writes them (Baltrušaitis et al., "OpenFace 2.0", FG 2018)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datamodules.au_tables.au_table import NamedRows
from datamodules.au_tables.csv_cells import ID_COLUMNS, CsvCells, read_cells

HIGHEST_INTENSITY = 5.0
"""Upper end of the columns ``AUxx_r``."""

_INTENSITY, _PRESENCE = (re.compile(rf"au0*([1-9]\d*)_{kind}") for kind in "rc")


class OpenFaceTable:
    """Reads the CSV output of OpenFace 1.x and 2.x, of FaceLandmarkImg (stills) and of FeatureExtraction.

    Either a folder with one file per picture, as FaceLandmarkImg makes it, in folders or not: a file is called as its
    picture. Or one file for all pictures, with a column added that names them. Columns: ``AU01_r`` … ``AU45_r``,
    intensity from 0 to 5, here divided by 5; ``AU28_c``, present or not, which has no intensity. Names may have a blank
    in front, as 2.0 writes them. Unknown are the pictures where OpenFace saw no face (no row, or ``success`` 0). Of
    several faces in a picture (column ``face`` or ``face_id``) the one of highest ``confidence`` counts.

    Args:
        path: the folder or the file.
        id_column: column that names the pictures; None = as in :class:`datamodules.au_tables.csv_table.CsvTable`.

    Attributes:
        names: A action units in the order of the files: those with an intensity, then those with presence alone.

    Raises:
        ValueError: no such columns, other columns in another file, a value that is no number in its scale, frames of a
            video instead of pictures, or a picture twice.
    """

    def __init__(self, path: Path, id_column: str | None = None) -> None:
        files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path}: found no *.csv in the folder, expected OpenFace's output, a file per picture")
        names: tuple[str, ...] | None = None
        best: dict[str, tuple[float, list[float]]] = {}
        for file in files:
            cells = read_cells(file)
            columns = _columns(cells)
            if names is not None and tuple(columns) != names:
                odd = sorted(set(names) ^ set(columns))
                raise ValueError(
                    f"{file}: found other action units than in {files[0]} ({', '.join(odd) or 'another order'}), "
                    "expected those of one run of OpenFace"
                )
            names = tuple(columns)
            own = str(file.relative_to(path).with_suffix("").as_posix()) if path.is_dir() else None
            faces: dict[str, set[str]] = {}
            for name, face, confidence, values in _faces(cells, columns, id_column, own):
                if face in faces.setdefault(name, set()) or (name in best and len(faces[name]) == 0):
                    raise ValueError(f"{file}: found picture '{name}' twice, expected each picture once")
                faces[name].add(face)
                if name not in best or confidence > best[name][0]:
                    best[name] = (confidence, values)
        assert names is not None
        array = np.array([values for _, values in best.values()], dtype=np.float32).reshape(len(best), len(names))
        self._rows = NamedRows(str(path), names, list(best), array)
        self.names = names

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the action units of n pictures, see :meth:`NamedRows.read`."""
        return self._rows.read(ids)


def _columns(cells: CsvCells) -> dict[str, tuple[int, float]]:
    """Returns action unit → (column, upper end of its scale)."""
    found: dict[str, tuple[int, float]] = {}
    for pattern, highest in ((_INTENSITY, HIGHEST_INTENSITY), (_PRESENCE, 1.0)):
        for column, text in enumerate(cells.header):
            match = pattern.fullmatch(text.casefold())
            if match is not None:
                found.setdefault(f"AU{match[1]}", (column, highest))
    if not any(highest == HIGHEST_INTENSITY for _, highest in found.values()):
        raise ValueError(
            f"{cells.path}: found no column AU01_r or alike ({cells.columns_found}), expected OpenFace's intensities "
            "(its option -aus)"
        )
    return found


def _faces(
    cells: CsvCells, columns: dict[str, tuple[int, float]], id_column: str | None, own: str | None
) -> Iterator[tuple[str, str, float, list[float]]]:
    """Yields picture, number of the face in it, confidence and action units, NaN where there was no success."""
    place = cells.id_column(id_column)
    if place is None and own is None:
        raise ValueError(
            f"{cells.path}: found no column that names the pictures ({cells.columns_found}), expected one of "
            f"{', '.join(ID_COLUMNS)}, or data.au_table.id_column, or a folder with a file per picture"
        )
    face, confidence, success = cells.find("face", "face_id"), cells.find("confidence"), cells.find("success")
    frame = cells.find("frame")
    if place is None and frame is not None and len({line[frame] for line in cells.lines.values()}) > 1:
        raise ValueError(f"{cells.path}: found several frames of a video, expected a file per picture")
    for line, texts in cells.lines.items():
        name = texts[place] if place is not None else own
        assert name is not None
        values = [cells.number(line, column, 0, highest) / highest for column, highest in columns.values()]
        if success is not None and cells.number(line, success, 0, 1) == 0:
            values = [math.nan] * len(values)
        sure = 0.0 if confidence is None else cells.number(line, confidence, 0, 1)
        yield name, "" if face is None else texts[face], sure, values
