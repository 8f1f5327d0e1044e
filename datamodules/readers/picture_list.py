"""Pictures that a table lists: a csv or Parquet file with a column of paths and one of labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datamodules.readers.affect_cells import affect_cells, affect_columns, is_known
from datamodules.readers.listed_pictures import Landmarks, ListedPicture, ListedPicturesReader, Listing
from datamodules.readers.reader import BadSamples, OnBadSample, Split
from datamodules.rows.images import Box
from synfer.faces.expressions import EXPRESSIONS, canonical_expression
from synfer.foundation.file_reading import did_you_mean

_KEY = "data.reader.init_args"
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class PictureListReader(ListedPicturesReader):
    """Reads pictures from a csv or Parquet table: ``path,label`` and, where there are such columns, more.

    Labels are names ("happiness" and "angry" are understood); numbers need ``classes``, for every data set counts in
    another order. One table with a column of splits, or one table a split.

    Args:
        root: folder that the paths start from.
        table: the table, below ``root`` or anywhere; {split} in the name stands for train, val and test.
        path_column: paths of the pictures.
        label_column: names or codes.
        split_column: train, val (or valid, validation) or test; null = the table's name has {split}, or all is train.
        group_column: person or photograph that must stay on one side of a split.
        box_columns: left, top, right and bottom of the face; null = the pictures are crops.
        landmark_columns: x and y of five points of the face in pixels of the picture, ten names: the eye on the left of
            the picture, the one on the right, nose, the mouth's left and right corner; empty cells = not known.
        classes: label as the table writes it → expression; null = the labels are names.
        valence_column: how pleasant, in [-1, 1], an empty cell where nobody knows; null = not known of any.
        arousal_column: how activated, likewise; both columns or neither. A row with one of them may lack its label.
        unknown_affect: what stands in these columns where nobody knows (AffectNet: −2, Aff-Wild2: −5); null = nothing.
        label_space: as ``ListedPicturesReader``; null = the expressions of ``classes``, or all eight.
        image_size: as there.
        on_bad_sample: as there.

    Raises:
        FileNotFoundError: the table is missing.
        ValueError: a setting, a column or an expression is not known.
    """

    title = "a table of pictures"
    release_space = EXPRESSIONS
    splits = ("train", "val", "test")
    names_no_release = True

    def __init__(
        self,
        root: str,
        table: str,
        path_column: str = "path",
        label_column: str = "label",
        split_column: str | None = None,
        group_column: str | None = None,
        box_columns: list[str] | None = None,
        classes: dict[str, str] | None = None,
        label_space: list[str] | str | None = None,
        image_size: int | None = None,
        on_bad_sample: OnBadSample = "error",
        valence_column: str | None = None,
        arousal_column: str | None = None,
        unknown_affect: float | None = None,
        landmark_columns: list[str] | None = None,
    ) -> None:
        if landmark_columns is not None and len(landmark_columns) != 10:
            raise ValueError(
                f"{_KEY}.landmark_columns: found {len(landmark_columns)} names, expected x and y of 5 points"
            )
        self._affect_columns = affect_columns(valence_column, arousal_column)
        self._unknown_affect = unknown_affect
        if box_columns is not None and len(box_columns) != 4:
            raise ValueError(f"{_KEY}.box_columns: found {len(box_columns)} names, expected left, top, right, bottom")
        self._table, self._columns = table, [path_column, label_column]
        self._split_column, self._group_column, self._box_columns = split_column, group_column, box_columns or []
        self._landmark_columns = landmark_columns or []
        more = (split_column, group_column, *self._box_columns, *self._affect_columns, *self._landmark_columns)
        self._columns += [name for name in more if name is not None]
        try:
            self._classes = None if classes is None else {k: canonical_expression(v) for k, v in classes.items()}
        except ValueError as error:
            raise ValueError(f"{_KEY}.classes: {error}") from None
        if label_space is None and self._classes is not None:
            label_space = [name for name in EXPRESSIONS if name in self._classes.values()]
        super().__init__(root, label_space, image_size, on_bad_sample)

    def _find(self) -> None:
        named = {split: self._table.replace("{split}", split) for split in self.splits}
        if "{split}" not in self._table and self._split_column is None:
            named = {"train": self._table}
        self._tables = {}
        for split, name in named.items():
            path = self._root / name if (self._root / name).is_file() else Path(name)
            if path.is_file():
                self._tables[split] = path
        if not self._tables:
            raise FileNotFoundError(
                f"{_KEY}.table: found no file '{self._table}', in '{self._root}' or from here, expected a csv or "
                "Parquet table"
            )

    def has_split(self, split: Split) -> bool:
        """Whether there is a table of a split; of a column of splits reading alone would tell."""
        return split in self._tables

    def _list(self, split: Split, bad: BadSamples) -> Listing:
        if split not in self._tables:
            raise ValueError(
                f"{_KEY}.table: found '{self._table}' for split {', '.join(self._tables)} alone, expected a column of "
                f"splits ({_KEY}.split_column), {{split}} in the table's name, or data.val_fraction"
            )
        listing, seen = Listing(), set[str]()
        for where, row in _rows(self._tables[split], self._columns):
            if row is None:
                bad.add(f"{where}: found another number of cells than in the header, expected as many")
                continue
            path, label = str(row[self._columns[0]]).strip(), str(row[self._columns[1]]).strip()
            try:
                if self._split_column is not None and self._split_of(row) != split:
                    continue
                affect = self._affect(row)
                no_label = label in ("", "None", "nan") and is_known(affect)
                expression = None if no_label else self._expression(label)
                box, landmarks = self._box(row), self._landmarks(row)
            except ValueError as error:
                bad.add(f"{where}: {error}")
                continue
            identity = path if box is None else f"{path}#{','.join(map(str, box))}"
            if identity in seen:
                bad.add(f"{where}: found '{path}' a second time, expected each face once")
                continue
            seen.add(identity)
            group = None if self._group_column is None else str(row[self._group_column])
            picture = ListedPicture(
                self._root / path, expression, identity, box, group, affect=affect, landmarks=landmarks
            )
            listing.pictures.append(picture)
        return listing

    def _split_of(self, row: Mapping[str, Any]) -> str:
        name = str(row[str(self._split_column)]).strip().lower()
        if name not in _SPLIT_NAMES:
            raise ValueError(f"found the split '{name}', expected one of {', '.join(_SPLIT_NAMES)}")
        return _SPLIT_NAMES[name]

    def _expression(self, label: str) -> str:
        if self._classes is None:
            if label.lstrip("-").isdecimal():
                raise ValueError(
                    f"found the label '{label}', expected a name, or {_KEY}.classes {{'{label}': happy, …}}: each data "
                    "set counts in an order of its own"
                )
            return canonical_expression(label)
        if label not in self._classes:
            hint = did_you_mean(label, list(self._classes))
            raise ValueError(f"found the label '{label}', expected one of {', '.join(self._classes)}{hint}")
        return self._classes[label]

    def _affect(self, row: Mapping[str, Any]) -> tuple[float, float] | None:
        if not self._affect_columns:
            return None
        valence, arousal = self._affect_columns
        return affect_cells((row[valence], row[arousal]), self._unknown_affect)

    def _box(self, row: Mapping[str, Any]) -> Box | None:
        if not self._box_columns:
            return None
        try:
            left, top, right, bottom = (round(float(row[name])) for name in self._box_columns)
        except (TypeError, ValueError):
            found = ", ".join(str(row[name]) for name in self._box_columns)
            raise ValueError(f"found the box {found}, expected four numbers") from None
        return left, top, right, bottom

    def _landmarks(self, row: Mapping[str, Any]) -> Landmarks | None:
        cells = [row[name] for name in self._landmark_columns]
        if not cells or any(cell is None or not str(cell).strip() for cell in cells):
            return None
        try:
            numbers = [float(cell) for cell in cells]
        except ValueError:
            raise ValueError(f"found the points {', '.join(map(str, cells))}, expected ten numbers") from None
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yields where each row stands and its values by name; None for a row with another number of cells.

    Raises:
        ValueError: a column is missing, or the file cannot be read.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        import pyarrow.parquet as pq

        try:
            names = pq.read_schema(path).names
            _check_columns(path, names, columns)
            rows = pq.read_table(path, columns=columns).to_pylist()
        except OSError as error:
            raise ValueError(f"{path}: found a file that cannot be read as Parquet, expected a table") from error
        for number, row in enumerate(rows):
            yield f"{path}, row {number}", row
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        names = [cell.strip() for cell in next(lines, [])]
        _check_columns(path, names, columns)
        for cells in lines:
            if cells:
                whole = len(cells) == len(names)
                yield f"{path}, line {lines.line_num}", dict(zip(names, cells, strict=True)) if whole else None


def _check_columns(path: Path, found: list[str], wanted: list[str]) -> None:
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, found)
            raise ValueError(f"{path}: found no column '{name}' ({', '.join(found) or 'none'}), expected it{hint}")
