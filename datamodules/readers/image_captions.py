"""Pictures with captions: FEText and other sets of image-text pairs, in four layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.captions.caption_row import CaptionColumns, CaptionRow
from datamodules.captions.held_out import held_out_rows
from datamodules.captions.row_groups import RowGroups
from datamodules.captions.sources import open_source
from datamodules.captions.stored_image import StoredImages
from datamodules.captions.streamed_images import StreamedImages, StreamSettings
from datamodules.readers.decoded_rows import decode_rows, unique_names
from datamodules.readers.reader import BadSamples, OnBadSample, Reader, Split, check_on_bad_sample
from datamodules.rows.sample_table import UNLABELLED, ReadReport, SampleTable, one_hot
from datamodules.rows.unlabelled import unlabelled_soft_labels
from synfer.faces.expressions import canonical_expression, resolve_label_space


class ImageCaptionsReader(Reader):
    """Reads sets of pictures and captions, with or without expressions.

    Release: FEText as published (arXiv 2410.09865; Parquet with ``image`` and ``caption``, no splits, no labels), and
    any set of one of these layouts: Parquet files; WebDataset's ``*.tar``; a folder with ``captions.csv`` or
    ``captions.jsonl`` (``file_name``, ``caption``); what ``datasets`` loads from the Hub or has saved to disk. A row
    without an expression is unlabelled: a generator learns from its caption, a classifier refuses it.

    Each picture is decoded once in ``read``, to check and to hash it; not so with ``streaming``, where only ids and
    captions are read, pictures come when a batch needs them, nothing is written to the disk, and a content hash stands
    for the place in the set instead of the pixels, so that duplicates between splits are not found.

    Args:
        path: folder, file, URL that ``fsspec`` reaches (Parquet alone), or Hub id.
        label_space: "basic7", "ferplus8" or a list of names; rows of other expressions are left out and counted.
        format: "parquet", "webdataset", "folder", "datasets"; "auto" looks what is there.
        image_column: null = ``image`` or ``file_name``.
        caption_column: null = ``caption`` or ``text``.
        label_column: with names of expressions; null = there are none, all rows are unlabelled.
        id_column: unique name of each row; null = that of the picture's file, or its place in the set.
        image_size: side in pixels; the central square is cut and resized to it. null = all pictures have one size.
        held_out: split → share in (0, 1) of the training rows that is held out for it, where it has no files of its
            own: {val: 0.02}. By content: equal pictures are in one split. Streamed: whole parts of the set.
        streaming: read pictures when a batch needs them, from Parquet (a row group at a time) or archives.
        shuffle_buffer: of a stream: within so many rows of a lane their order is random.
        lanes: of a stream: places at which each rank reads side by side; as many as ``data.num_workers``.
        revision: branch, tag or commit on the Hub; null = the newest.
        on_bad_sample: "error", or "skip" to leave bad samples out (counted and named in ``table.report``).

    Raises:
        FileNotFoundError: nothing there that could be such a set.
        ValueError: a setting out of range, or two that do not go together.
    """

    def __init__(
        self,
        path: str,
        label_space: str | list[str] = "basic7",
        format: str = "auto",
        image_column: str | None = None,
        caption_column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
        image_size: int | None = None,
        held_out: dict[str, float] | None = None,
        streaming: bool = False,
        shuffle_buffer: int = 2000,
        lanes: int = 1,
        revision: str | None = None,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        self.label_space = resolve_label_space(label_space)
        for name, value in (("image_size", image_size), ("shuffle_buffer", shuffle_buffer), ("lanes", lanes)):
            _check(name, value, value is None or value >= 1, "at least 1")
        _check("image_size", image_size, image_size is not None or not streaming, "a side in pixels with streaming")
        self._held_out = held_out or {}
        shares = list(self._held_out.values())
        right = set(self._held_out) <= {"val", "test"} and all(share > 0 for share in shares) and sum(shares) < 1
        _check("held_out", held_out, right, "shares of val and test, above 0 and below 1 together")
        self._path, self._image_size, self._on_bad_sample = path, image_size, on_bad_sample
        self._stream = StreamSettings(shuffle_buffer, lanes, on_bad_sample == "skip") if streaming else None
        self._columns = CaptionColumns(image_column, caption_column, label_column, id_column)
        groups = RowGroups(2 * shuffle_buffer, lanes) if streaming else None
        self._source = open_source(path, format, self._columns, groups, revision)
        self._read: dict[str, SampleTable] = {}

    @property
    def streaming(self) -> bool:
        """Whether pictures are read when a batch needs them, and content hashes stand for places."""
        return self._stream is not None

    def has_split(self, split: Split) -> bool:
        """Whether there are files of a split, or a share that is held out for it."""
        return split in self._source.splits or split in self._held_out

    def read(self, split: Split) -> SampleTable:
        """Returns the rows of one split, in the order in which they lie.

        Raises:
            ValueError: the split has no file and no share of the training rows, no row is usable, or one is bad (unless
                skipped).
        """
        own = split in self._source.splits
        if not own and (split not in self._held_out or "train" not in self._source.splits):
            raise ValueError(
                f"{self._path}: found no split '{split}' (found {', '.join(self._source.splits)}), expected one, or "
                f"data.reader.init_args.held_out={{{split}: a share of the training rows}}"
            )
        table = self._whole(split if own else "train")
        shares = {name: share for name, share in self._held_out.items() if name not in self._source.splits}
        if not shares or (own and split != "train"):
            return table
        parts = table.images.parts if isinstance(table.images, StreamedImages) else None
        taken = held_out_rows(table.content_hash, shares, parts)
        kept = np.flatnonzero(taken == ("" if split == "train" else split))
        if not len(kept):
            raise ValueError(
                f"data.reader.init_args.held_out={self._held_out}: found no row of {len(table)} for split '{split}', "
                "expected at least one (a larger set, or another share)"
            )
        report = replace(table.report, excluded={**table.report.excluded, "of other splits": len(table) - len(kept)})
        return replace(table.select(kept), split=split, report=report)

    def _whole(self, split: str) -> SampleTable:
        """Returns all rows of a split that the source has; read once."""
        if split not in self._read:
            self._read[split] = self._table(split)
        return self._read[split]

    def _table(self, split: str) -> SampleTable:
        found, bad = self._source.rows(split), BadSamples(self._on_bad_sample)
        for line in found.bad:
            bad.add(line)
        excluded = dict(found.excluded)
        rows: list[CaptionRow] = []
        labels: list[int] = []
        for row in found.rows:
            where = f"{self._path}: {row.place}"
            try:
                name = _expression(row.label, where)
                if not isinstance(row.caption, str) or not row.caption.strip():
                    raise ValueError(f"{where}: found no caption, expected a text")
            except ValueError as error:
                bad.add(str(error))
                continue
            if name is not None and name not in self.label_space:
                reason = f"expression '{name}' is outside the label space"
                excluded[reason] = excluded.get(reason, 0) + 1
                continue
            rows.append(row)
            labels.append(UNLABELLED if name is None else self.label_space.index(name))
        if self.streaming:
            good, hashes = list(range(len(rows))), [row.digest for row in rows]
        else:
            good, hashes = decode_rows(rows, bad, self._path, self._image_size)
        skipped = bad.settle(of=len(found.rows) + len(found.bad))
        if not good:
            raise ValueError(
                f"{self._path}: found no usable row in split '{split}' ({len(found.rows)} rows, {len(skipped)} bad, "
                f"{sum(excluded.values())} left out by rule), expected at least one"
            )
        used = [rows[index] for index in good]
        label = np.array(labels, dtype=np.int64)[good]
        soft_label = unlabelled_soft_labels(len(label), len(self.label_space))
        soft_label[label >= 0] = one_hot(label[label >= 0], len(self.label_space))
        if self.streaming:
            rank_zero_info(
                f"{self._path}: {len(used)} {split} rows in {len({r.part for r in used})} parts are streamed"
            )
        return SampleTable(
            images=self._images(used),
            label=label,
            soft_label=soft_label,
            sample_id=np.array(unique_names(used)),
            content_hash=np.array(hashes),
            label_space=self.label_space,
            split=split,
            caption=np.array([row.caption.strip() for row in used], dtype=object),
            report=ReadReport(read=len(found.rows) + len(found.bad), skipped=skipped, excluded=excluded),
        )

    def _images(self, rows: Sequence[CaptionRow]) -> StoredImages:
        images, places = [row.image for row in rows], [f"{self._path}: {row.place}" for row in rows]
        if self._stream is None:
            return StoredImages(images, places, self._image_size)
        parts = np.array([row.part for row in rows], dtype=np.int64)
        return StreamedImages(images, places, self._image_size, parts, self._stream)


def _expression(label: object, where: str) -> str | None:
    """Returns the canonical name of a label; None where there is none."""
    if label is None or label == "":
        return None
    if not isinstance(label, str):
        raise ValueError(f"{where}: found the label {label!r}, expected the name of an expression")
    try:
        return canonical_expression(label)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check(name: str, value: object, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ValueError(f"data.reader.init_args.{name}={value}: expected {expected}")
