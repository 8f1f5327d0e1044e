"""Action units as LibreFace writes them (Chang et al., WACV 2024, arXiv 2308.10713)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.au_tables.au_source import AUScale
from datamodules.au_tables.au_table import NamedRows
from datamodules.au_tables.table_cells import TableCells
from datamodules.au_tables.tool_rows import ToolProfile, read_tool_rows

HIGHEST_INTENSITY = 5.0
"""Upper end of the columns ``au_xx_intensity``, and of the lists that it is trained on."""

_BEYOND = 1.0  # the joint model's head is linear and its numbers are not clamped; further off is another scale
_INTENSITY = AUScale("intensity", HIGHEST_INTENSITY, _BEYOND)
_DETECTED = re.compile(r"au_\d+", re.IGNORECASE)
_ESTIMATED = re.compile(r"au_\d+_intensity", re.IGNORECASE)
_MARKS = {"frame_idx", "frame_time_in_ms", "facial_expression", "lm_mp_0_x"}
_LISTED = re.compile(r"au\d+")  # in this spelling alone


class LibreFaceTable(NamedRows):
    """Reads the output of LibreFace for videos and pictures, and the lists that it is trained on.

    Output: ``au_12`` is 0 or 1, ``au_12_intensity`` from 0 to 5, here divided by 5; where a unit has both, the
    intensity alone counts; 7, 10, 14, 23 and 24 have presence alone. Its usual model does not clamp intensities: what
    lies up to 1 outside of 0 to 5 is clipped and counted. Frames without a face are left out by LibreFace, so that only
    ``frame_idx`` tells which frame a row is: ``id_template``. A picture is a file of its own, called as the picture,
    for LibreFace does not write its name.

    Lists: ``image_path``, ``au1``, ``au2``, …, from 0 to 5. Columns go by their names: their order has been wrong in
    lists that were made from the order of files (ihp-lab/LibreFace issue 2).

    Args:
        path: file, or folder of files.
        id_column: column that names the pictures; None = a usual one (``image_path``).
        id_template: name of the picture of a row (:class:`datamodules.au_tables.picture_names.PictureNames`).

    Attributes:
        names: A action units in the order of the file: those with an intensity, then those with presence alone.

    Raises:
        ValueError: no such columns, a value outside its scale, a list without any value above 1 (are they in [0, 1]?),
            frames of a video without a template, or a picture twice.
    """

    def __init__(self, path: Path, id_column: str | None = None, id_template: str | None = None) -> None:
        rows = read_tool_rows(path, _profile, id_column, id_template, ("frame_idx",))
        listed = all(_LISTED.fullmatch(column.column) for column in rows.source.columns)
        if listed and not (rows.values > 1 / HIGHEST_INTENSITY).any():
            raise ValueError(
                f"{path}: found no number above 1 in the columns {rows.source.columns[0].column}, …, expected "
                "intensities from 0 to 5; for numbers in [0, 1] data.au_table.format=csv"
            )
        super().__init__(str(path), [column.name for column in rows.source.columns], *rows)

    @staticmethod
    def recognises(header: Sequence[str]) -> bool:
        """Whether LibreFace writes such columns, or is trained on them."""
        if any(map(_ESTIMATED.fullmatch, header)) or _is_list(header):
            return True
        return any(map(_DETECTED.fullmatch, header)) and not _MARKS.isdisjoint(text.casefold() for text in header)


def _is_list(header: Sequence[str]) -> bool:
    return "image_path" in header and any(map(_LISTED.fullmatch, header))


def _profile(cells: TableCells) -> ToolProfile:
    expected = "expected LibreFace's au_1_intensity, …, or au_1, … beside frame_idx or facial_expression"
    if not LibreFaceTable.recognises(cells.header):
        raise ValueError(f"{cells.path}: found none of LibreFace's columns ({cells.columns_found}), {expected}")
    if _is_list(cells.header):
        return ToolProfile("LibreFace, list for training", {"": AUScale("intensity", HIGHEST_INTENSITY)}, expected)
    what = "pictures" if cells.find("frame_idx", "frame_time_in_ms") is None else "video"
    scales = {"_intensity": _INTENSITY, "": AUScale("presence")}
    return ToolProfile(f"LibreFace, {what}", scales, expected, frame=("frame_idx",), first_frame=0)
