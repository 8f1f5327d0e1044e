"""Reading Parquet with an error of one line where a file is damaged or another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synfer.foundation.file_reading import FileError, reading


def read_parquet(path: Path, kind: str, expected: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns a table, its pages compared with their checksums where the file holds any.

    Args:
        path: the file.
        kind: what it should be, for errors: "label table".
        expected: what should be in it, for errors.
        columns: those that are wanted; None = all.

    Raises:
        FileNotFoundError: no file there.
        ValueError: it is damaged, no Parquet, or lacks a column.
    """
    with reading(kind, path, expected):
        missing = sorted(set(columns or ()) - set(pq.read_schema(path).names))
        if missing:
            raise FileError(f"{kind} '{path}': found no column '{missing[0]}', expected {expected}")
        names = None if columns is None else list(columns)
        return pq.read_table(path, columns=names, page_checksum_verification=True)
