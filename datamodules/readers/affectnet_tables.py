"""AffectNet's first release: folders of pictures with tables of boxes and labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.readers.affect_cells import affect_cells
from datamodules.readers.affectnet import CODES, UNKNOWN_AFFECT, expression_of
from datamodules.readers.known_sets import published
from datamodules.readers.listed_pictures import Landmarks, ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, Split
from datamodules.rows.images import Box
from synfer.faces.expressions import EXPRESSIONS
from synfer.faces.face_alignment import five_of_68

_COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
_TABLES = {"train": "training.csv", "val": "validation.csv"}


class AffectNetTablesReader(ListedPicturesReader):
    """Reads the manually annotated part of AffectNet's first release (120 GB), faces cut out by its boxes.

    Layout: ``Manually_Annotated_Images/<folder>/<hash>.jpg`` and ``Manually_Annotated_file_lists/training.csv`` and
    ``validation.csv`` with the columns subDirectory_filePath, face_x, face_y, face_width, face_height,
    facial_landmarks, expression, valence, arousal; copies without a header line are read by that order. Codes as in
    ``AffectNetReader``; 8 none, 9 uncertain and 10 no face are left out and counted. Valence and arousal lie in
    [-1, 1]; −2 is not known, never a number. Splits: train 287,651 of the eight expressions, val 4,000, which papers
    call the test split. On request, for research alone; it does not say who is shown. It cannot be tried here: it is
    read in its layout alone, made of drawn faces. The release of 2021 is read by ``AffectNetReader``: papers use both,
    and their scores differ.

    Args:
        root: folder with both of these folders.
        label_space: as ``ListedPicturesReader``.
        image_size: as there; needed, for boxes have many sizes.
        on_bad_sample: as there. One row of the published table is damaged: "skip" goes on without it and names it.

    Raises:
        FileNotFoundError: the tables are missing.
    """

    title = "AffectNet's first release (Manually_Annotated_file_lists and Manually_Annotated_Images)"
    release_space = EXPRESSIONS
    splits = ("train", "val")
    published: ClassVar = published("AffectNet's first release, eight expressions")

    def _find(self) -> None:
        self._tables = self._root / "Manually_Annotated_file_lists"
        self._images = self._root / "Manually_Annotated_Images"
        for split in self.splits:
            if not (self._tables / _TABLES[split]).is_file():
                raise self._missing(f"table Manually_Annotated_file_lists/{_TABLES[split]}")
        if not self._images.is_dir():
            raise self._missing("folder Manually_Annotated_Images")

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        listing = Listing()
        for where, row in _rows(self._tables / _TABLES[split]):
            if row is None:
                bad.add(f"{where}: expected the nine columns {', '.join(_COLUMNS)}")
                continue
            expression, name = expression_of(row["expression"].strip()), row["subDirectory_filePath"].strip()
            if expression is None:
                bad.add(f"{where}: found the expression '{row['expression']}', expected a code 0 to {len(CODES) - 1}")
            elif expression not in EXPRESSIONS:
                listing.excluded[f"annotated as {expression}"] += 1
            elif (box := _box(row)) is None:
                bad.add(f"{where}: found no box of whole numbers, expected face_x, face_y, face_width and face_height")
            else:
                try:
                    affect = affect_cells((row["valence"], row["arousal"]), UNKNOWN_AFFECT)
                except ValueError as error:
                    bad.add(f"{where}: {error}")
                    continue
                points = _points(row["facial_landmarks"]) if self.wants_landmarks else None
                picture = ListedPicture(self._images / name, expression, name, box, affect=affect, landmarks=points)
                listing.pictures.append(picture)
        return listing


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str] | None]]:
    """Yields where each row stands and its values by name; None for a row with another number of columns."""
    with path.open(encoding="utf-8", newline="") as file:
        names: list[str] = list(_COLUMNS)
        for number, row in enumerate(csv.reader(file), start=1):
            if number == 1 and _COLUMNS[0] in (cells := [cell.strip() for cell in row]):
                lost = [name for name in _COLUMNS if name not in cells]
                if lost:
                    raise ValueError(f"{path}: found no column '{lost[0]}' ({', '.join(cells)}), expected it")
                names = cells
            else:
                whole = len(row) == len(names)
                yield f"{path}, line {number}", dict(zip(names, row, strict=True)) if whole else None


def _points(cell: str) -> Landmarks | None:
    """Returns five points of 68 ("x;y;x;y;…"); None where there are no such numbers."""
    try:
        numbers = np.array([float(word) for word in cell.split(";")])
    except ValueError:
        return None
    return [(float(x), float(y)) for x, y in five_of_68(numbers.reshape(68, 2))] if len(numbers) == 136 else None


def _box(row: dict[str, str]) -> Box | None:
    try:
        left, top, width, height = (int(float(row[name])) for name in _COLUMNS[1:5])
    except ValueError:
        return None
    return left, top, left + width, top + height
