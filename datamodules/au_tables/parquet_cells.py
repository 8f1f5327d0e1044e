"""Cells of Parquet files, as text like those of CSV files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.au_tables.table_cells import TableCells, keep_none, kept_columns
from synfer.foundation.file_reading import plain_reason


def parquet_header(path: Path) -> tuple[str, ...]:
    """Returns the names of the columns, without blanks around them.

    Raises:
        ValueError: no column, one twice, or no Parquet.
    """
    with _reading(path):
        import pyarrow.parquet as pq

        header = tuple(name.strip() for name in pq.read_schema(path).names)
    kept_columns(path, header, keep_none)
    return header


def read_parquet(path: Path, keep: Callable[[str], bool]) -> TableCells:
    """Reads the columns of a Parquet file that are needed; numbers lose no digit as text.

    Args:
        path: the file.
        keep: whether the cells of a column are needed, given its name in lower case.

    Raises:
        ValueError: no column, one twice, or no Parquet.
    """
    header = parquet_header(path)
    with _reading(path):
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        written = file.schema_arrow.names  # with their blanks
        places = kept_columns(path, header, keep)
        table = file.read(columns=[written[place] for place in places])
        columns = {place: [_text(cell) for cell in table[written[place]].to_pylist()] for place in places}
        rows = range(file.metadata.num_rows)
    return TableCells(path, header, columns, rows, unit="row")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: found no Parquet ({plain_reason(error, 120)}), expected a whole file") from error


def _text(cell: Any) -> str:
    """Returns a cell as CSV would have it: nothing where it is null, 0 or 1 for a truth value."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    return cell.decode("utf-8", "replace").strip() if isinstance(cell, bytes) else str(cell).strip()
