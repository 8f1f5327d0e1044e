"""Which layout reads a set that holds its pictures, by its name or by what lies there."""

from __future__ import annotations

from pathlib import Path

from datamodules.captions.sources import format_of, is_hub_id
from datamodules.picture_tables.found_table import PictureSet, TableColumns
from datamodules.picture_tables.hub_set import HubSet
from datamodules.picture_tables.parquet_set import ParquetSet
from datamodules.picture_tables.tar_set import TarSet

FORMATS = ("auto", "parquet", "webdataset", "datasets")
"""How a set may lie; "auto" looks."""

_KEY = "data.reader.init_args"


def open_set(path: str, format_name: str, columns: TableColumns, revision: str | None) -> PictureSet:
    """Returns the set.

    Args:
        path: folder, file, URL or Hub id.
        format_name: one of :data:`FORMATS`.
        columns: which of them hold what.
        revision: of a data set of the Hub; None = the newest.

    Raises:
        FileNotFoundError: nothing there that could be such a set.
        ValueError: an unknown format, or a table of files.
    """
    if format_name not in FORMATS:
        raise ValueError(f"{_KEY}.format: found '{format_name}', expected one of {', '.join(FORMATS)}")
    on_hub = is_hub_id(path)
    chosen = format_of(path, on_hub, streaming=False) if format_name == "auto" else format_name
    if chosen == "folder":
        raise ValueError(
            f"{_KEY}.path: found a table of files in '{path}', expected pictures in Parquet files or archives "
            "(datamodules.readers.PictureListReader reads tables of files)"
        )
    if chosen == "parquet":
        revised = f"hf://datasets/{path}" + (f"@{revision}" if revision else "")
        return ParquetSet(revised if on_hub else path, columns)
    if chosen == "datasets":
        return HubSet(path, columns, revision)
    if not Path(path).exists():
        raise FileNotFoundError(f"{_KEY}.path '{path}': no such file or folder, expected archives there")
    return TarSet(path, columns)
