"""Labels, names and pictures of local Parquet files, column by column: rows may be millions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datamodules.captions.caption_row import CaptionColumns
from datamodules.captions.parquet_captions import label_names, named_label
from datamodules.readers.reader import BadSamples
from datamodules.rows.images import BadImageError, check_not_constant
from datamodules.rows.mapped_pictures import MappedPictures, PictureColumn
from datamodules.rows.provenance import content_hash
from datamodules.rows.read_ahead import read_ahead
from synfer.foundation.file_reading import reading

_AT_ONCE = 64  # pictures that one thread decodes at a time
_AHEAD, _THREADS = 16, 4


@dataclass(frozen=True)
class ParquetColumns:
    """The rows of one split.

    Attributes:
        pictures: N pictures.
        label: number of each row's label, int64 (N,); −1 = it has none.
        labels: what stands in the label's column, by that number; a code that has a name in the file is that name.
        name: of each row, str (N,), "" where it has none.
    """

    pictures: MappedPictures
    label: np.ndarray
    labels: list[Any]
    name: np.ndarray


def read_columns(
    path: str, files: list[tuple[str, Path]], columns: CaptionColumns, image_size: int | None
) -> ParquetColumns:
    """Returns the rows of files, in the order in which they lie.

    Args:
        path: of the set, for messages.
        files: name and place of each.
        columns: which of them hold what.
        image_size: side in pixels to which pictures are resized; None = all have one size.

    Raises:
        ValueError: a file is damaged, or lacks a column.
    """
    parts, labels, codes, names = [], dict[Any, int](), [], []
    for name, place in files:
        with reading("set of pictures", f"{path}: {name}", "a Parquet file with pictures and labels"):
            with pq.ParquetFile(place) as file:
                there = columns.among(file.schema_arrow.names, f"'{name}'")
                assert there.image is not None
                codes.append(_labels(file, there.label, labels))
                names.append(_names(file, there))
            parts.append(PictureColumn(place, there.image))
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    row = np.concatenate([np.arange(len(part)) for part in parts])
    pictures = MappedPictures(parts, [f"{path}: {name}" for name, _ in files], owner, row, image_size)
    return ParquetColumns(pictures, np.concatenate(codes), list(labels), np.concatenate(names))


def good_rows(
    pictures: MappedPictures, rows: np.ndarray, bad: BadSamples, image_size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes each picture once; returns the numbers of the good rows, int64 (n,), and their content hashes, str (n,).

    Args:
        pictures: of all rows.
        rows: those that are wanted.
        bad: is told of each picture that cannot be used.
        image_size: side in pixels to which pictures are resized; None = all must have the size of the first.
    """

    def inspected(some: np.ndarray) -> list[tuple[tuple[int, int], str] | BadImageError]:
        return [_inspected(pictures, row) for row in some.tolist()]

    hashes = np.empty(len(rows), dtype="U16")
    good = np.zeros(len(rows), dtype=bool)
    expected: tuple[int, int] | None = None
    place = 0
    for some, found in read_ahead(inspected, _pieces(rows), _THREADS, _AHEAD):  # decoding releases the interpreter lock
        for row, outcome in zip(some.tolist(), found, strict=True):
            if isinstance(outcome, BadImageError):
                bad.add(str(outcome))
            else:
                size, digest = outcome
                expected = expected or size
                if image_size is None and size != expected:
                    wanted = f"{expected[0]}x{expected[1]}"
                    bad.add(
                        f"{pictures.place(row)}: found {size[0]}x{size[1]} pixels, expected {wanted} like the pictures "
                        "before it (or set data.reader.init_args.image_size)"
                    )
                else:
                    good[place], hashes[place] = True, digest
            place += 1
    return rows[good], hashes[good]


def unique_ids(columns: ParquetColumns, rows: np.ndarray) -> np.ndarray:
    """Returns sample ids, str (n,): names of pictures, with the place where a name comes twice or is missing."""
    names = columns.name[rows]
    _, first, times = np.unique(names, return_inverse=True, return_counts=True)
    lone = (times[first] == 1) & (names != "")
    if lone.all():
        return names
    files = columns.pictures
    return np.array(
        [
            name if alone else f"{name}@{files.place(row).rpartition(': ')[2]}"
            for name, alone, row in zip(names.tolist(), lone.tolist(), rows.tolist(), strict=True)
        ]
    )


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE]


def _inspected(pictures: MappedPictures, row: int) -> tuple[tuple[int, int], str] | BadImageError:
    """Returns height, width and content hash of a picture, or why it is bad."""
    try:
        image = pictures.whole(row)
        check_not_constant(image, pictures.place(row))
    except BadImageError as error:
        return error
    return (image.shape[0], image.shape[1]), content_hash(image)


def _labels(file: pq.ParquetFile, column: str | None, labels: dict[Any, int]) -> np.ndarray:
    """Returns the number of each row's label, int64 (N,), and adds new labels to ``labels``."""
    if column is None:
        return np.full(file.metadata.num_rows, -1, dtype=np.int64)
    named = label_names(file.schema_arrow, column)
    encoded = pc.dictionary_encode(file.read(columns=[column])[column]).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.int32()).dictionary_encode()
    values = [named_label(value, named) for value in encoded.dictionary.to_pylist()]
    numbers = np.array([labels.setdefault(value, len(labels)) for value in values] + [-1], dtype=np.int64)
    index = pc.fill_null(encoded.indices, len(values)).to_numpy(zero_copy_only=False)
    return numbers[index]


def _names(file: pq.ParquetFile, columns: CaptionColumns) -> np.ndarray:
    """Returns the name of each row, str (N,): its id, or the path that the struct of ``datasets`` keeps."""
    count = file.metadata.num_rows
    if columns.sample_id is not None:
        cells = file.read(columns=[columns.sample_id])[columns.sample_id]
    else:
        kind = file.schema_arrow.field(str(columns.image)).type
        if not (pa.types.is_struct(kind) and kind.get_field_index("path") >= 0):
            return np.full(count, "", dtype="U1")
        struct = file.read(columns=[f"{columns.image}.path"])[columns.image]
        cells = pc.struct_field(struct, "path")
    return np.array(["" if cell is None else str(cell) for cell in cells.to_pylist()] or [], dtype=str)
