"""Action units as py-feat writes them (Cheong et al., "Py-Feat", Affective Science 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.au_tables.au_source import AUScale
from datamodules.au_tables.au_table import NamedRows, action_unit_of
from datamodules.au_tables.table_cells import TableCells
from datamodules.au_tables.tool_rows import ToolProfile, read_tool_rows

_MARKS = {"facerectx", "facerecty", "facerectwidth", "facerectheight", "facescore"}
_OF_ONE, _OF_TWO = {"anger", "happiness", "sadness"}, {"Anger", "Happy", "Sad"}  # as the emotions are spelt


class PyFeatTable(NamedRows):
    """Reads what py-feat 0.x, 1.x and 2.x save (``Fex.to_csv``): pictures by the column ``input``, one row per face.

    Columns ``AU01`` … ``AU43``: how sure it is that the unit acts, in [0, 1]. Pictures without a face have empty cells
    (``FaceScore`` 0 or none) and are unknown; of several faces the one of highest ``FaceScore`` counts. Frames of a
    video are named by ``id_template``, in which ``{name}`` is the name of the video.

    Args:
        path: file, or folder of files.
        id_column: column that names the pictures; None = a usual one (``input``).
        id_template: name of the picture of a row (:class:`datamodules.au_tables.picture_names.PictureNames`).

    Attributes:
        names: A action units in the order of the file.

    Raises:
        ValueError: no such columns, a value that is no number in [0, 1], frames of a video without a template, or a
            face twice.
    """

    def __init__(self, path: Path, id_column: str | None = None, id_template: str | None = None) -> None:
        rows = read_tool_rows(path, _profile, id_column, id_template, ("frame", "FaceScore"))
        super().__init__(str(path), [column.name for column in rows.source.columns], *rows)

    @staticmethod
    def recognises(header: Sequence[str]) -> bool:
        """Whether py-feat writes such columns."""
        return not _MARKS.isdisjoint(text.casefold() for text in header) and any(map(action_unit_of, header))


def _profile(cells: TableCells) -> ToolProfile:
    spelt = set(cells.header)
    version = " 2" if not spelt.isdisjoint(_OF_TWO) else " 1 or older" if not spelt.isdisjoint(_OF_ONE) else ""
    return ToolProfile(
        f"py-feat{version}",
        {"": AUScale("probability")},
        "expected py-feat's AU01, AU02, …",
        confidence=("FaceScore",),
        many_faces=True,
        first_frame=0,
        seen=_seen,
    )


def _seen(cells: TableCells, row: int, values: Sequence[float]) -> bool:
    score = cells.find("FaceScore")
    return score is None or cells.number(row, score, 0, 1) > 0
