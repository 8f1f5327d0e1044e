"""Data sets that hold their pictures: Parquet tables, data sets of the Hub, archives of WebDataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.captions.caption_row import CaptionColumns, CaptionRow
from datamodules.captions.folder_captions import FolderCaptions
from datamodules.captions.parquet_captions import ParquetCaptions
from datamodules.captions.sources import open_source
from datamodules.captions.stored_image import StoredImages
from datamodules.readers.decoded_rows import decode_rows, unique_names
from datamodules.readers.parquet_columns import good_rows, read_columns, unique_ids
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.sample_table import ReadReport, SampleTable, one_hot
from synfer.faces.expressions import EXPRESSIONS, canonical_expression, resolve_label_space
from synfer.foundation.file_reading import did_you_mean

_KEY = "data.reader.init_args"
_NOT_WANTED = -2
_FORMATS = ("auto", "parquet", "webdataset", "datasets")
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

    Pictures stay encoded, in a mapped Arrow file beside the indexes (Parquet; small files and those elsewhere in
    memory), in the memory-mapped tables of ``datasets``, or in the archives; each is decoded once in ``read``, to check
    and to hash it.

    Args:
        path: folder, file, URL that ``fsspec`` reaches (Parquet alone), or Hub id.
        format: "parquet", "webdataset", "datasets"; "auto" looks what is there.
        image_column: null = ``image`` or ``img``.
        label_column: names or codes; of archives the entry of the ``.json`` where there is no ``.cls``.
        id_column: unique name of each row; null = that of the picture's file, or its place in the set.
        classes: label as it is stored → expression: {"0": anger, …}; null = labels are names of expressions.
        label_space: "basic7", "ferplus8" or a list of names; null = the expressions of ``classes``, or "basic7".
            Rows of others are left out and counted.
        image_size: side in pixels; the central square is cut and resized to it. null = ``data.image_size``,
            or all pictures have one size.
        revision: branch, tag or commit on the Hub; null = the newest.
        on_bad_sample: "error", or "skip" to leave bad samples out (counted and named in ``table.report``).

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
        classes: dict[str, str] | None = None,
        label_space: str | list[str] | None = None,
        image_size: int | None = None,
        revision: str | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        if image_size is not None and image_size < 1:
            raise ValueError(f"{_KEY}.image_size: found {image_size}, expected at least 1 or null")
        if format not in _FORMATS:
            raise ValueError(f"{_KEY}.format: found '{format}', expected one of {', '.join(_FORMATS)}")
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
        self._columns = CaptionColumns(image_column, None, label_column, id_column, captioned=False)
        self._source = open_source(path, format, self._columns, None, revision)
        if isinstance(self._source, FolderCaptions):
            raise ValueError(
                f"{_KEY}.path: found a table of files in '{path}', expected pictures in Parquet files or archives "
                "(datamodules.readers.PictureListReader reads tables of files)"
            )

    def has_split(self, split: Split) -> bool:
        """Whether the set has files, or a split of its own, for it."""
        return split in self._source.splits

    @property
    def _image_size(self) -> int | None:
        return self._given_size or self.wanted_size

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split, in the order in which they lie.

        Raises:
            ValueError: there is no such split, labels are numbers without a meaning, no row is usable, or one is bad
                (unless skipped).
        """
        if split not in self._source.splits:
            raise ValueError(
                f"{self._path}: found no split '{split}' (found {', '.join(self._source.splits)}), expected it: "
                "datamodules.readers.RemappedReader reads another in its place, data.val_fraction holds rows out"
            )
        files = self._source.local_files(split) if isinstance(self._source, ParquetCaptions) else None
        if files is not None:
            return self._read_columns(split, files)
        found, bad = self._source.rows(split), BadSamples(self._on_bad_sample)
        for line in found.bad:
            bad.add(line)
        excluded = dict(found.excluded)
        labels = [_text(row.label) for row in found.rows]
        self._refuse_codes(labels)
        rows: list[CaptionRow] = []
        classes: list[int] = []
        for row, label in zip(found.rows, labels, strict=True):
            try:
                name = self._expression(label)
            except ValueError as error:
                bad.add(f"{self._path}: {row.place}: {error}")
                continue
            if name not in self.label_space:
                reason = f"expression '{name}' is outside the label space"
                excluded[reason] = excluded.get(reason, 0) + 1
                continue
            rows.append(row)
            classes.append(self.label_space.index(name))
        good, hashes = decode_rows(rows, bad, self._path, self._image_size)
        skipped = bad.settle(of=len(found.rows) + len(found.bad))
        if not good:
            raise self._nothing(split, len(found.rows), len(skipped), excluded)
        used = [rows[index] for index in good]
        label_of_row = np.array(classes, dtype=np.int64)[good]
        places = [f"{self._path}: {row.place}" for row in used]
        return SampleTable(
            images=StoredImages([row.image for row in used], places, self._image_size),
            label=label_of_row,
            soft_label=one_hot(label_of_row, len(self.label_space)),
            sample_id=np.array(unique_names(used)),
            content_hash=np.array(hashes),
            label_space=self.label_space,
            split=split,
            report=ReadReport(read=len(found.rows) + len(found.bad), skipped=skipped, excluded=excluded),
        )

    def _read_columns(self, split: Split, files: list[tuple[str, Path]]) -> SampleTable:
        """Returns the same of Parquet files of this machine, of which no row becomes an object of its own."""
        columns = read_columns(self._path, files, self._columns, self._image_size)
        bad, excluded = BadSamples(self._on_bad_sample), dict[str, int]()
        labels = [_text(label) for label in columns.labels]
        without = bool((columns.label < 0).any())
        self._refuse_codes([*labels, None] if without else labels)
        classes = np.full(len(labels) + 1, _NOT_WANTED, dtype=np.int64)
        reasons: dict[int, str] = {}
        for code, label in enumerate([*labels, None]):
            try:
                name = self._expression(label)
            except ValueError as error:
                reasons[code if label is not None or code < len(labels) else -1] = str(error)
                continue
            if name in self.label_space:
                classes[code] = self.label_space.index(name)
            elif count := int((columns.label == code).sum()):
                reason = f"expression '{name}' is outside the label space"
                excluded[reason] = excluded.get(reason, 0) + count
        for row in np.flatnonzero(np.isin(columns.label, list(reasons))).tolist():
            bad.add(f"{columns.pictures.place(row)}: {reasons[int(columns.label[row])]}")
        wanted = np.flatnonzero(classes[columns.label] != _NOT_WANTED)
        good, hashes = good_rows(columns.pictures, wanted, bad, self._image_size)
        count = len(columns.label)
        skipped = bad.settle(of=count)
        if not len(good):
            raise self._nothing(split, count, len(skipped), excluded)
        label_of_row = classes[columns.label[good]]
        return SampleTable(
            images=columns.pictures.select(good),
            label=label_of_row,
            soft_label=one_hot(label_of_row, len(self.label_space)),
            sample_id=unique_ids(columns, good),
            content_hash=hashes,
            label_space=self.label_space,
            split=split,
            report=ReadReport(read=count, skipped=skipped, excluded=excluded),
        )

    def _nothing(self, split: Split, rows: int, bad: int, excluded: dict[str, int]) -> ValueError:
        return ValueError(
            f"{self._path}: found no usable row in split '{split}' ({rows} rows, {bad} bad, "
            f"{sum(excluded.values())} left out by rule), expected at least one"
        )

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
