"""A finished synthetic set, opened to be copied: checked before the first row, read one row group after the other."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from datamodules.synthetic.synthetic_manifest import (
    MANIFEST,
    Manifest,
    check_complete,
    read_manifest,
    repair_command,
)
from datamodules.synthetic.synthetic_rows import label_names
from datamodules.synthetic.synthetic_shards import DamagedShardError, compared_with, indices_in, read_record
from synfer.foundation.file_reading import plain_reason

PART = "part"
"""Entry of a record: which faces of a set are here; without it all that were planned are."""


@dataclass(frozen=True)
class WholeSet:
    """A set with all the faces that were planned.

    Attributes:
        folder: where it lies.
        manifest: its shards.
        record: what its faces were made with.
        label_space: names of its expressions, in the order of its label codes.
        schema: its columns, labels as numbers.
        image_size: (height, width) of its pictures in pixels.
    """

    folder: Path
    manifest: Manifest
    record: dict[str, Any]
    label_space: tuple[str, ...]
    schema: pa.Schema
    image_size: tuple[int, int]

    @property
    def faces(self) -> int:
        """Rows."""
        return self.manifest.faces

    @property
    def source(self) -> str:
        """8 hex digits over what the faces were made with: of two sets with the same, face i is the same face."""
        made_with = {name: value for name, value in self.record.items() if name != PART}
        return hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:8]

    def indices(self) -> np.ndarray:
        """Returns the indices of its faces, int64, sorted."""
        found = [indices_in(path, self.manifest, compared=False) for path in self._shards()]
        return np.sort(np.concatenate([*found, np.empty(0, dtype=np.int64)]))

    def tables(self) -> Iterator[pa.Table]:
        """Yields all rows, some hundred at a time; each shard is compared with the manifest before its first row.

        Raises:
            ValueError: a shard is not what was written, or a picture has another size than the first.
        """
        for path in self._shards():
            try:
                compared_with(path, self.manifest.shards[path.name])
                file = pq.ParquetFile(path, page_checksum_verification=True)
                for group in range(file.num_row_groups):
                    table = _coded(file.read_row_group(group), self.label_space)
                    self._check_sizes(table, path)
                    yield table.select(self.schema.names)
            except (DamagedShardError, pa.ArrowException, KeyError) as error:
                raise _damaged(self.folder, path, error) from error

    def _shards(self) -> list[Path]:
        return [self.folder / "data" / name for name in sorted(self.manifest.shards)]

    def _check_sizes(self, table: pa.Table, path: Path) -> None:
        for row, data in enumerate(table["image"].combine_chunks().field("bytes")):
            found = size_of(data.as_py(), f"{path} row {row}")
            if found != self.image_size:
                raise ValueError(
                    f"{path} row {row}: found {found[0]}x{found[1]} pixels, expected "
                    f"{self.image_size[0]}x{self.image_size[1]} like the pictures before it"
                )


def open_whole(folder: Path) -> WholeSet:
    """Opens a set that is finished.

    Args:
        folder: that holds ``data/`` and the manifest.

    Raises:
        ValueError: there is none, it has no manifest or no record, or it is unfinished; one line with the way out.
    """
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is None:
        way_out = f"; {repair_command(folder, '--as-it-is')} lists an older set" if (folder / "data").is_dir() else ""
        raise ValueError(f"synthetic set '{folder}': found no {MANIFEST}, expected the folder of a set{way_out}")
    check_complete(folder, manifest)
    if not manifest.shards:
        raise ValueError(f"synthetic set '{folder}': found no face, expected some")
    first = folder / "data" / min(manifest.shards)
    try:
        compared_with(first, manifest.shards[first.name])
        file = pq.ParquetFile(first)
        names = label_names(file.schema_arrow) or _field_names(file.schema_arrow)
        row = next(file.iter_batches(1, columns=["image"])).to_pylist()[0]
        size = size_of(row["image"]["bytes"], f"{first} row 0")
    except (DamagedShardError, pa.ArrowException, OSError, KeyError, StopIteration) as error:
        raise _damaged(folder, first, error) from error
    schema = _coded(file.schema_arrow.empty_table(), names).schema.remove_metadata()
    return WholeSet(folder, manifest, read_record(folder), tuple(names), schema, size)


def size_of(data: bytes, where: str) -> tuple[int, int]:
    """Returns (height, width) of an encoded picture in pixels; of a PNG 24 bytes are enough.

    Raises:
        ValueError: it is no picture.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    try:
        width, height = Image.open(io.BytesIO(data)).size
    except OSError as error:
        raise ValueError(f"{where}: found no picture, expected one ({plain_reason(error, 80)})") from error
    return height, width


def _damaged(folder: Path, path: Path, error: Exception) -> ValueError:
    said = str(error)
    if not isinstance(error, DamagedShardError):
        said = f"'{path}' cannot be read ({plain_reason(error, 120)})"
    return ValueError(
        f"synthetic set: {said}, expected a shard as predict has written it ({repair_command(folder)} puts it aside)"
    )


def _field_names(schema: pa.Schema) -> list[str]:
    kind = schema.field("soft_label").type
    return [kind.field(place).name for place in range(kind.num_fields)]


def _coded(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Returns the table with labels as numbers, which sets of old versions have as text."""
    if not pa.types.is_string(table.schema.field("label").type):
        return table
    codes = pa.array([list(names).index(name) for name in table["label"].to_pylist()], pa.int64())
    return table.set_column(table.column_names.index("label"), "label", codes)
