"""Data sets that hold their pictures: Parquet tables, data sets of the Hub, archives of WebDataset."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from datamodules.captions.caption_row import CaptionColumns, CaptionRow
from datamodules.captions.folder_captions import FolderCaptions
from datamodules.captions.sources import open_source
from datamodules.captions.stored_image import StoredImages
from datamodules.readers.affect_cells import affect_cells, affect_columns, is_known
from datamodules.readers.decoded_rows import decode_rows, unique_names
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.sample_table import UNLABELLED, ReadReport, SampleTable, one_hot
from datamodules.rows.unlabelled import unlabelled_soft_labels
from synfer.faces.expressions import EXPRESSIONS, canonical_expression, resolve_label_space
from synfer.foundation.file_reading import did_you_mean

_KEY = "data.reader.init_args"
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

    Pictures stay encoded in memory (Parquet), in the memory-mapped tables of ``datasets``, or in the archives; each is
    decoded once in ``read``, to check and to hash it.

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
        classes: dict[str, str] | None = None,
        label_space: str | list[str] | None = None,
        image_size: int | None = None,
        revision: str | None = None,
        on_bad_sample: OnBadSample = "error",
        valence_column: str | None = None,
        arousal_column: str | None = None,
        unknown_affect: float | None = None,
    ) -> None:
        self._affect_columns, self._unknown_affect = affect_columns(valence_column, arousal_column), unknown_affect
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
        columns = CaptionColumns(
            image_column, None, label_column, id_column, captioned=False, affect=self._affect_columns
        )
        self._source = open_source(path, format, columns, None, revision)
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
        found, bad = self._source.rows(split), BadSamples(self._on_bad_sample)
        for line in found.bad:
            bad.add(line)
        excluded = dict(found.excluded)
        labels = [_text(row.label) for row in found.rows]
        self._refuse_codes(labels)
        rows: list[CaptionRow] = []
        classes: list[int] = []
        ratings: list[tuple[float, float]] = []
        for row, label in zip(found.rows, labels, strict=True):
            try:
                rating = (math.nan, math.nan)
                if self._affect_columns:
                    rating = affect_cells((row.affect[0], row.affect[1]), self._unknown_affect)
                name = None if label is None and is_known(rating) else self._expression(label)
            except ValueError as error:
                bad.add(f"{self._path}: {row.place}: {error}")
                continue
            if name is not None and name not in self.label_space:
                reason = f"expression '{name}' is outside the label space"
                excluded[reason] = excluded.get(reason, 0) + 1
                continue
            rows.append(row)
            classes.append(UNLABELLED if name is None else self.label_space.index(name))
            ratings.append(rating)
        good, hashes = decode_rows(rows, bad, self._path, self._image_size)
        skipped = bad.settle(of=len(found.rows) + len(found.bad))
        if not good:
            raise ValueError(
                f"{self._path}: found no usable row in split '{split}' ({len(found.rows)} rows, {len(skipped)} bad, "
                f"{sum(excluded.values())} left out by rule), expected at least one"
            )
        used = [rows[index] for index in good]
        label_of_row = np.array(classes, dtype=np.int64)[good]
        soft_label = one_hot(label_of_row, len(self.label_space))
        soft_label[label_of_row == UNLABELLED] = unlabelled_soft_labels(1, len(self.label_space))
        places = [f"{self._path}: {row.place}" for row in used]
        return SampleTable(
            images=StoredImages([row.image for row in used], places, self._image_size),
            label=label_of_row,
            soft_label=soft_label,
            sample_id=np.array(unique_names(used)),
            content_hash=np.array(hashes),
            label_space=self.label_space,
            split=split,
            affect=np.array(ratings, dtype=np.float32)[good] if self._affect_columns else None,
            report=ReadReport(read=len(found.rows) + len(found.bad), skipped=skipped, excluded=excluded),
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
