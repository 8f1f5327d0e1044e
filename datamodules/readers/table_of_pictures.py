"""Data sets that hold their pictures: Parquet tables, data sets of the Hub, archives of WebDataset."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from datamodules.picture_tables.cell_images import CellImages
from datamodules.picture_tables.found_table import CodedColumn, FoundTable, TableColumns
from datamodules.picture_tables.open_set import FORMATS, open_set
from datamodules.picture_tables.row_names import unique_names
from datamodules.readers.affect_cells import affect_cells, affect_columns
from datamodules.readers.good_cells import good_cells
from datamodules.readers.known_sets import say_what_it_is
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.sample_table import UNLABELLED, ReadReport, SampleTable, one_hot
from datamodules.rows.unlabelled import unlabelled_soft_labels
from synfer.faces.expressions import EXPRESSIONS, canonical_expression, resolve_label_space
from synfer.foundation.file_reading import did_you_mean

_KEY = "data.reader.init_args"
_LEFT_OUT = -2  # beside the places in a label space and UNLABELLED
_PICKLES = (".pkl", ".pickle", ".pt", ".pth")


class TableOfPicturesReader(Reader):
    """Reads faces and labels from a set that holds the encoded pictures, one a row.

    Release: what the Hub has of data sets of this field (columns ``image`` and ``label``), as local Parquet files or by
    its id; Parquet files of your own, the picture as bytes or as the struct of ``datasets``; WebDataset's ``*.tar``
    (``0001.jpg`` with ``0001.cls``, or with ``0001.json`` that has the label). Splits by the names of files and
    folders, or those of the Hub; of a set with ``train`` alone ``data.val_fraction`` holds rows out.

    Labels are read by their NAMES: those of the column, or those that the set keeps with a column of numbers (the
    ``ClassLabel`` of ``datasets``). Copies on the Hub count alphabetically, so that neutral is 4 where FER2013 has 6.
    Numbers without names are refused unless ``classes`` says what they mean. Pickled files are not loaded: they may run
    any program. Copies often hold a part of a data set: compare the numbers with its publication.

    Pictures stay encoded: in the archives, in the memory-mapped tables of ``datasets``, or, those of Parquet files of
    more than 64 MiB, in a copy of the same bytes beside the indexes (``$SYNFER_INDEX_DIR``), so that a row costs a few
    bytes of memory. Each is decoded once in ``read``, to check and to hash it; what that told is kept, so that a later
    start decodes a few of each file.

    Args:
        path: folder, file, URL that ``fsspec`` reaches (Parquet alone), or Hub id.
        format: "parquet", "webdataset", "datasets"; "auto" looks what is there.
        image_column: null = ``image`` or ``img``.
        label_column: names or codes; of archives the entry of the ``.json`` where there is no ``.cls``.
        id_column: unique name of each row; null = that of the picture's file, or its place in the set.
        group_column: whom a row shows, or which photograph or clip it is of: such rows stay on one side of a split.
            null = the set does not say.
        classes: label as it is stored → expression: {"0": anger, …}; null = labels are names of expressions.
        label_space: "basic7", "ferplus8" or a list of names; null = the expressions of ``classes``, or "basic7".
            Rows of others are left out and counted.
        image_size: side in pixels; the central square is cut and resized to it. null = ``data.image_size``,
            or all pictures have one size.
        revision: branch, tag or commit on the Hub; null = the newest.
        on_bad_sample: "error", or "skip" to leave bad samples out (counted and named in ``table.report``).
        valence_column: how pleasant, in [-1, 1], nothing where nobody knows; null = not known of any. Of archives an
            entry of the ``.json``.
        arousal_column: how activated, likewise; both columns or neither. A row with one of them may lack its label.
        unknown_affect: what stands in these columns where nobody knows (AffectNet: −2); null = nothing.

    Raises:
        FileNotFoundError: nothing there that could be such a set.
        ValueError: a setting out of range, or pickled files.
    """

    def __init__(
        self,
        path: str,
        format: str = "auto",
        image_column: str | None = None,
        label_column: str = "label",
        id_column: str | None = None,
        group_column: str | None = None,
        classes: dict[str, str] | None = None,
        label_space: str | list[str] | None = None,
        image_size: int | None = None,
        revision: str | None = None,
        on_bad_sample: OnBadSample = "error",
        valence_column: str | None = None,
        arousal_column: str | None = None,
        unknown_affect: float | None = None,
    ) -> None:
        affect, self._unknown_affect = affect_columns(valence_column, arousal_column), unknown_affect
        check_on_bad_sample(on_bad_sample)
        if image_size is not None and image_size < 1:
            raise ValueError(f"{_KEY}.image_size: found {image_size}, expected at least 1 or null")
        if format not in FORMATS:
            raise ValueError(f"{_KEY}.format: found '{format}', expected one of {', '.join(FORMATS)}")
        self._path, self._given_size, self._on_bad_sample = path, image_size, on_bad_sample
        try:
            self._classes = None if classes is None else {k: canonical_expression(v) for k, v in classes.items()}
        except ValueError as error:
            raise ValueError(f"{_KEY}.classes: {error}") from None
        if label_space is None:
            named = EXPRESSIONS[:7] if self._classes is None else self._classes.values()
            label_space = [name for name in EXPRESSIONS if name in named]
        self.label_space = resolve_label_space(label_space)
        _refuse_pickles(Path(path))
        columns = TableColumns(image_column, label_column, id_column, group_column, affect)
        self._set = open_set(path, format, columns, revision)

    def has_split(self, split: Split) -> bool:
        """Whether the set has files, or a split of its own, for it."""
        return split in self._set.splits

    @property
    def _image_size(self) -> int | None:
        return self._given_size or self.wanted_size

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split, in the order in which they lie.

        Raises:
            ValueError: there is no such split, labels are numbers without a meaning, no row is usable, or one is bad
                (unless skipped).
        """
        if split not in self._set.splits:
            raise ValueError(
                f"{self._path}: found no split '{split}' (found {', '.join(self._set.splits)}), expected it: "
                "datamodules.readers.RemappedReader reads another in its place, data.val_fraction holds rows out"
            )
        found, bad = self._set.table(split), BadSamples(self._on_bad_sample)
        for line in found.bad:
            bad.add(line)
        excluded = dict(found.excluded)
        affect, rows_of_bad_ratings = self._affect(found, bad)
        label = self._labels(found, affect, bad, excluded)
        label[rows_of_bad_ratings] = _LEFT_OUT
        say_what_it_is(f"{self._path}, split '{split}'", self._counted)
        good, hashes = good_cells(found, label != _LEFT_OUT, self._image_size, self._path, bad)
        rows_found = len(found.cells) + len(found.bad)
        skipped = bad.settle(of=rows_found)
        if not len(good):
            raise ValueError(
                f"{self._path}: found no usable row in split '{split}' ({len(found.cells)} rows, {len(skipped)} bad, "
                f"{sum(excluded.values())} left out by rule), expected at least one"
            )
        soft_label = one_hot(label[good], len(self.label_space))
        soft_label[label[good] == UNLABELLED] = unlabelled_soft_labels(1, len(self.label_space))
        return SampleTable(
            images=CellImages(found.cells, good, self._path, self._image_size),
            label=label[good].astype(np.int64),
            soft_label=soft_label,
            sample_id=unique_names(found, good),
            content_hash=hashes,
            label_space=self.label_space,
            split=split,
            group=self._groups(found, good),
            affect=None if affect is None else affect[good],
            report=ReadReport(read=rows_found, skipped=skipped, excluded=excluded),
        )

    def _affect(self, found: FoundTable, bad: BadSamples) -> tuple[np.ndarray | None, np.ndarray]:
        """Returns valence and arousal, float32 (N, 2), None where the set has none, and the rows of no numbers."""
        if not found.affect:
            return None, np.zeros(0, dtype=np.int64)
        affect = np.full((len(found.cells), 2), np.nan, dtype=np.float32)
        wrong = np.zeros(len(found.cells), dtype=bool)
        for place, column in enumerate(found.affect):
            reasons: dict[int, str] = {}
            numbers = np.full(len(column.values) + 1, np.nan, dtype=np.float32)  # the last is that of an empty cell
            for code, value in enumerate(column.values):
                try:
                    cells = (value, None) if place == 0 else (None, value)
                    numbers[code] = affect_cells(cells, self._unknown_affect)[place]
                except ValueError as error:
                    reasons[code] = str(error)
            affect[:, place] = numbers[column.codes]
            rows = np.flatnonzero(np.isin(column.codes, list(reasons)) & ~wrong)
            wrong[rows] = True
            for row in rows.tolist():
                bad.add(f"{self._path}: {found.cells.place(row)}: {reasons[int(column.codes[row])]}")
        return affect, np.flatnonzero(wrong)

    def _labels(
        self, found: FoundTable, affect: np.ndarray | None, bad: BadSamples, excluded: dict[str, int]
    ) -> np.ndarray:
        """Returns places in the label space, int32 (N,); −1 where a rated row has no label, −2 where one is left out.

        Those are told or counted.

        Raises:
            ValueError: the labels are numbers of which nobody has said what they mean.
        """
        texts = [_text(value) for value in found.label.values]
        self._refuse_codes([text for text, used in zip(texts, _used(found.label), strict=True) if used])
        place = np.full(len(texts) + 1, _LEFT_OUT, dtype=np.int32)  # the last is that of a row without a label
        reasons: dict[int, str] = {}
        self._counted: Counter[str] = Counter()
        counts = np.bincount(found.label.codes[found.label.codes >= 0], minlength=len(texts))
        for code, text in enumerate([*texts, None]):
            try:
                name = self._expression(text)
            except ValueError as error:
                reasons[code] = str(error)
                continue
            self._counted[name] += int(counts[code]) if code < len(counts) else 0
            if name in self.label_space:
                place[code] = self.label_space.index(name)
            elif counts[code]:
                reason = f"expression '{name}' is outside the label space"
                excluded[reason] = excluded.get(reason, 0) + int(counts[code])
        blank = [code for code, text in enumerate(texts) if text is None]
        codes = np.where(found.label.codes < 0, len(texts), found.label.codes)
        codes[np.isin(codes, blank)] = len(texts)
        rated = np.zeros(len(codes), dtype=bool) if affect is None else np.isfinite(affect).any(axis=1)
        alone = rated & (codes == len(texts))
        for row in np.flatnonzero(np.isin(codes, list(reasons)) & ~alone).tolist():
            bad.add(f"{self._path}: {found.cells.place(row)}: {reasons[int(codes[row])]}")
        labels: np.ndarray = np.where(alone, UNLABELLED, place[codes])
        return labels

    def _groups(self, found: FoundTable, good: np.ndarray) -> np.ndarray | None:
        """Returns groups, str (n,); None without a column of them.

        Raises:
            ValueError: a row has none.
        """
        if found.group is None:
            return None
        lost = good[found.group.codes[good] < 0]
        if len(lost):
            raise ValueError(
                f"{self._path}: {found.cells.place(int(lost[0]))}: found nothing in the column of groups ({len(lost)} "
                f"of {len(good)} rows), expected whom each row shows"
            )
        return np.array([str(value) for value in found.group.values])[found.group.codes[good]]

    def _refuse_codes(self, labels: list[str | None]) -> None:
        """Refuses a set whose labels are numbers, of which nobody has said what they mean."""
        if self._classes is None and labels and all(label is not None and _is_number(label) for label in labels):
            codes = sorted({str(label) for label in labels}, key=int)
            shown = ", ".join(codes[:8]) + (", …" if len(codes) > 8 else "")
            raise ValueError(
                f"{self._path}: found the labels {shown} and no names of them, expected names, or "
                f"{_KEY}.classes={{'{codes[0]}': happy, …}}: each data set counts in an order of its own"
            )

    def _expression(self, label: str | None) -> str:
        if label is None:
            raise ValueError("found no label, expected the name of an expression")
        if self._classes is None:
            return canonical_expression(label)
        if label not in self._classes:
            hint = did_you_mean(label, list(self._classes))
            raise ValueError(f"found the label '{label}', expected one of {', '.join(self._classes)}{hint}")
        return self._classes[label]


def _used(label: CodedColumn) -> np.ndarray:
    """Returns which values occur, bool (V,)."""
    return np.bincount(label.codes[label.codes >= 0], minlength=len(label.values)) > 0


def _text(label: object) -> str | None:
    """Returns a label as text, 3.0 as "3"; None where there is none."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return None if label is None or not str(label).strip() else str(label).strip()


def _is_number(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _refuse_pickles(path: Path) -> None:
    """Refuses what only unpickling would read.

    Raises:
        ValueError: ``path`` is a pickled file, or a folder of such files and of none that could be read.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    pickled = [file for file in files if file.suffix.lower() in _PICKLES]
    if pickled and not any(file.suffix.lower() in (".parquet", ".tar", ".arrow") for file in files):
        raise ValueError(
            f"{_KEY}.path: found the pickled file '{pickled[0]}', which could run any program when loaded, expected "
            "Parquet files or archives of pictures"
        )
