"""Sets of captions in Parquet files: ``image`` (bytes, or the struct of ``datasets``) and ``caption``."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.captions.caption_row import CaptionColumns, CaptionRow, FoundRows
from datamodules.captions.row_groups import RowGroups, StreamedCell, image_bytes
from datamodules.captions.split_names import files_by_split
from datamodules.captions.stored_image import InMemory, StoredImage
from synfer.foundation.file_reading import plain_reason, reading

_EXPECTED = "a Parquet file with pictures and captions"


class ParquetCaptions:
    """Parquet files below a folder, or one file, anywhere that ``fsspec`` reaches.

    Release: FEText's Hub layout (columns ``image``, ``caption``), and any other by the names of its columns. Pictures
    are held in memory as they are encoded, unless they are streamed.

    Args:
        path: folder, file or URL (``hf://datasets/owner/name``).
        columns: which of them hold what.
        streamed: where pictures are read when asked for, a row group at a time; None = all are read here.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: files that are no Parquet, or lack a column.
    """

    def __init__(self, path: str, columns: CaptionColumns, streamed: RowGroups | None = None) -> None:
        self._path, self._streamed, self._columns = path, streamed, columns
        self._filesystem, self._root, self._files = parquet_by_split(path)
        self.splits = tuple(self._files)

    def rows(self, split: str) -> FoundRows:
        """Returns the rows of one split.

        Raises:
            ValueError: a file is damaged, or lacks a column.
        """
        found = FoundRows()
        part = 0
        for name in self._files[split]:
            with (
                reading("image-caption set", f"{self._path}: {name}", _EXPECTED),
                self._filesystem.open(f"{self._root}/{name}", "rb") as opened,
            ):
                part = self._read_file(name, pq.ParquetFile(opened), found, part)
        return found

    def _read_file(self, name: str, file: pq.ParquetFile, found: FoundRows, part: int) -> int:
        """Adds the rows of one file; returns the number of the next part."""
        columns = self._columns.among(file.schema_arrow.names, f"'{name}'")
        assert columns.image is not None
        wanted = [c for c in (columns.caption, columns.label, columns.sample_id) if c is not None]
        is_struct = pa.types.is_struct(file.schema_arrow.field(columns.image).type)
        if self._streamed is None:
            wanted.append(columns.image)
        elif is_struct and file.schema_arrow.field(columns.image).type.get_field_index("path") >= 0:
            wanted.append(f"{columns.image}.path")
        number = -1
        if self._streamed is not None:
            url = self._filesystem.unstrip_protocol(f"{self._root}/{name}")
            number = self._streamed.add_file(url, file.metadata, columns.image)
        labels = label_names(file.schema_arrow, columns.label)
        row = 0
        for group in range(file.metadata.num_row_groups):
            digest = hashlib.sha256(repr(file.metadata.row_group(group).to_dict()).encode())
            cells = file.read_row_group(group, columns=wanted).to_pylist()
            for index, cell in enumerate(cells):
                image: StoredImage
                if self._streamed is None:
                    image = InMemory(image_bytes(cell[columns.image]))
                else:
                    image = StreamedCell(self._streamed, number, group, index)
                picture = cell.get(columns.image)
                path = picture.get("path") if isinstance(picture, dict) else None
                named = cell[columns.sample_id] if columns.sample_id is not None else path
                own = digest.copy()
                own.update(f"{name} {row}".encode())
                found.rows.append(
                    CaptionRow(
                        name="" if named is None else str(named),
                        place=f"{name}#{row}",
                        image=image,
                        caption=None if columns.caption is None else cell[columns.caption],
                        label=_named(cell[columns.label], labels) if columns.label is not None else None,
                        part=part,
                        digest=own.hexdigest()[:16],
                    )
                )
                row += 1
            part += 1
        return part


def parquet_by_split(path: str) -> tuple[Any, str, dict[str, list[str]]]:
    """Returns the file system of a set's Parquet files, their folder there, and split → their names in it.

    Args:
        path: folder, file or URL.

    Raises:
        FileNotFoundError: nothing there.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(path)
        every = [str(name) for name in filesystem.find(root) if str(name).endswith(".parquet")]
    except Exception as error:  # each file system raises what it likes
        raise FileNotFoundError(
            f"data.reader.init_args.path '{path}': {plain_reason(error)}, expected Parquet files there"
        ) from error
    folder = root.rstrip("/") if every != [root] else root.rpartition("/")[0]
    files = files_by_split([name.removeprefix(folder).lstrip("/") for name in every])
    if not files:
        raise FileNotFoundError(f"data.reader.init_args.path: found no *.parquet in '{path}', expected some")
    return filesystem, folder, files


def label_names(schema: pa.Schema, column: str | None) -> list[str] | None:
    """Returns the names of a ``ClassLabel`` of ``datasets``; None where the column holds names itself."""
    stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = stored.get("info", {}).get("features", {}).get(column, {})
    return feature.get("names") if isinstance(feature, dict) else None


def _named(cell: Any, names: list[str] | None) -> Any:
    return names[cell] if names is not None and isinstance(cell, int) and 0 <= cell < len(names) else cell
