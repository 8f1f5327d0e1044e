"""Action units as OpenFace writes them (Baltrušaitis et al., "OpenFace 2.0", FG 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.au_tables.au_source import AUScale
from datamodules.au_tables.au_table import NamedRows, split_column
from datamodules.au_tables.table_cells import TableCells
from datamodules.au_tables.tool_rows import ToolProfile, read_tool_rows

HIGHEST_INTENSITY = 5.0
"""Upper end of the columns ``AUxx_r``."""

_SCALES = {"_r": AUScale("intensity", HIGHEST_INTENSITY), "_c": AUScale("presence")}
_OF_TWO = ("face_id", "gaze_angle_x", "eye_lmk_x_0")  # columns that 1.x does not have
_ALSO = ("face", "face_id", "frame", "confidence", "success")


class OpenFaceTable(NamedRows):
    """Reads the output of OpenFace 1.x and 2.x, of FaceLandmarkImg (stills) and of FeatureExtraction (videos).

    Either a folder with one file per picture, as FaceLandmarkImg makes it, in folders or not: a file is called as its
    picture. Or one file for all pictures, with a column added that names them. Or files of videos, whose frames are
    pictures, named by ``id_template``. Columns: ``AU01_r`` … ``AU45_r``, intensity from 0 to 5, here divided by 5;
    ``AU28_c``, present or not, which has no intensity. Names may have a blank in front, as 2.0 writes them.

    Unknown are the pictures where OpenFace saw no face: no row, ``success`` 0, or, in stills, which have no such
    column, a row of zeros with ``confidence`` 0: it is no neutral face. Of several faces in a picture (column ``face``
    or ``face_id``) the one of highest ``confidence`` counts.

    Args:
        path: the folder or the file.
        id_column: column that names the pictures; None = as in :class:`datamodules.au_tables.csv_table.CsvTable`.
        id_template: name of the picture of a row (:class:`datamodules.au_tables.picture_names.PictureNames`).

    Attributes:
        names: A action units in the order of the first file: those with an intensity, then those with presence alone.

    Raises:
        ValueError: no such columns, other columns in another file, a value that is no number in its scale, frames of a
            video instead of pictures, or a picture twice.
    """

    def __init__(self, path: Path, id_column: str | None = None, id_template: str | None = None) -> None:
        rows = read_tool_rows(path, _profile, id_column, id_template, _ALSO)
        super().__init__(str(path), [column.name for column in rows.source.columns], *rows)

    @staticmethod
    def recognises(header: Sequence[str]) -> bool:
        """Whether OpenFace writes such columns."""
        return any(split_column(text)[1] in _SCALES for text in header)


def _profile(cells: TableCells) -> ToolProfile:
    expected = "expected OpenFace's intensities (its option -aus)"
    if not any(split_column(text)[1] == "_r" for text in cells.header):
        raise ValueError(f"{cells.path}: found no column AU01_r or alike ({cells.columns_found}), {expected}")
    stills = cells.find("frame", "timestamp", "success") is None
    version = 2 if stills or cells.find(*_OF_TWO) is not None else 1
    return ToolProfile(
        f"OpenFace {version}, {'stills' if stills else 'video'}",
        _SCALES,
        expected,
        face=("face", "face_id"),
        confidence=("confidence",),
        many_faces=True,
        first_frame=1,
        seen=_seen,
    )


def _seen(cells: TableCells, row: int, values: Sequence[float]) -> bool:
    success, confidence = cells.find("success"), cells.find("confidence")
    if success is not None:
        return cells.number(row, success, 0, 1) > 0
    if confidence is not None:
        return cells.number(row, confidence, 0, 1) > 0
    return any(value != 0 for value in values)  # where both columns are gone, nobody can tell
