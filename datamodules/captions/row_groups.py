"""Pictures in Parquet files, read a row group at a time; the newest groups stay in memory, nothing goes to the disk."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow.parquet as pq
import torch.utils.data


class RowGroups:
    """The image column of Parquet files, anywhere that ``fsspec`` reaches (a folder, ``hf://datasets/…``).

    Each process opens the files for itself, so that loader processes may be forked.

    Args:
        rows_in_memory: how many rows are kept for every lane of the stream that this process reads.
        lanes: lanes of a rank, divided over its loader processes.
    """

    def __init__(self, rows_in_memory: int, lanes: int) -> None:
        self._rows, self._lanes = rows_in_memory, lanes
        self._files: list[tuple[str, Any, str]] = []
        self._largest = 1
        self._kept: OrderedDict[tuple[int, int], list[bytes | None]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}

    def add_file(self, url: str, metadata: pq.FileMetaData, column: str) -> int:
        """Enters a file; returns its number."""
        self._files.append((url, metadata, column))
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._largest = max([self._largest, *sizes])
        return len(self._files) - 1

    def content(self, file: int, group: int, row: int) -> bytes | None:
        """Returns the encoded picture of one row of a group.

        Raises:
            OSError: the file cannot be read.
        """
        key = (file, group)
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = self._load(file, group)
            worker = torch.utils.data.get_worker_info()
            lanes = -(-self._lanes // (worker.num_workers if worker is not None else 1))
            while sum(map(len, self._kept.values())) > lanes * (self._rows + 2 * self._largest) and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return self._kept[key][row]

    def _load(self, file: int, group: int) -> list[bytes | None]:
        url, metadata, column = self._files[file]
        with fsspec.open(url, "rb") as opened:
            cells = pq.ParquetFile(opened, metadata=metadata).read_row_group(group, columns=[column])[column]
        return [image_bytes(cell) for cell in cells.to_pylist()]


@dataclass(frozen=True, slots=True)
class StreamedCell:
    """The picture of one row, in a row group of a file."""

    groups: RowGroups
    file: int
    group: int
    row: int

    def read(self) -> bytes | None:
        """Returns its bytes; reads the whole group where it is not in memory."""
        return self.groups.content(self.file, self.group, self.row)


def image_bytes(cell: Any) -> bytes | None:
    """Returns the encoded picture in a cell: bytes, or the struct of ``datasets``."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None
