"""Which source reads a set, by its name or by what lies there."""

from __future__ import annotations

import re
from pathlib import Path

from datamodules.captions.caption_row import CaptionColumns, CaptionSource
from datamodules.captions.folder_captions import TABLES, FolderCaptions
from datamodules.captions.hub_captions import HubCaptions
from datamodules.captions.parquet_captions import ParquetCaptions
from datamodules.captions.row_groups import RowGroups
from datamodules.captions.tar_captions import TarCaptions

FORMATS = ("auto", "parquet", "webdataset", "folder", "datasets")
"""How a set may lie; "auto" looks."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_source(
    path: str, format_name: str, columns: CaptionColumns, streamed: RowGroups | None, revision: str | None
) -> CaptionSource:
    """Returns the source of a set of captions.

    Args:
        path: folder, file, URL or Hub id.
        format_name: one of :data:`FORMATS`.
        columns: which of them hold what.
        streamed: what reads pictures of Parquet files when asked for; None = nothing is streamed.
        revision: of a data set of the Hub; None = the newest.

    Raises:
        FileNotFoundError: nothing there that could be such a set.
        ValueError: an unknown format, or one that cannot be streamed.
    """
    if format_name not in FORMATS:
        raise ValueError(f"data.reader.init_args.format: found '{format_name}', expected one of {', '.join(FORMATS)}")
    on_hub = is_hub_id(path)
    chosen = format_of(path, on_hub, streamed is not None) if format_name == "auto" else format_name
    if streamed is not None and chosen not in ("parquet", "webdataset"):
        raise ValueError(
            f"data.reader.init_args.streaming=true: found the format '{chosen}', expected parquet or webdataset"
        )
    if chosen == "parquet":
        revised = f"hf://datasets/{path}" + (f"@{revision}" if revision else "")
        return ParquetCaptions(revised if on_hub else path, columns, streamed)
    if chosen == "datasets":
        return HubCaptions(path, columns, revision)
    if not Path(path).exists():
        raise FileNotFoundError(f"data.reader.init_args.path '{path}': no such file or folder, expected captions there")
    return TarCaptions(path, columns) if chosen == "webdataset" else FolderCaptions(path, columns)


def is_hub_id(path: str) -> bool:
    """Whether a path is the id of a data set of the Hub: owner/name, and nothing of that name is here."""
    return not Path(path).exists() and _HUB_ID.fullmatch(path) is not None


def format_of(path: str, on_hub: bool, streaming: bool) -> str:
    """Returns the format of what lies there.

    Args:
        path: folder, file, URL or Hub id.
        on_hub: whether it is a Hub id.
        streaming: whether it is not to be fetched as a whole.

    Raises:
        FileNotFoundError: nothing there, or files of several formats.
    """
    if on_hub:
        return "parquet" if streaming else "datasets"
    if "://" in path:
        return "parquet"
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(
            f"data.reader.init_args.path '{path}': no such file, folder or Hub id (owner/name), expected captions"
        )
    if place.is_file():
        return "webdataset" if place.suffix == ".tar" else "parquet"
    if any((place / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return "datasets"
    found = {
        "folder": any(any(place.glob(f"{within}{name}")) for within in ("", "*/") for name in TABLES),
        "parquet": any(place.rglob("*.parquet")),
        "webdataset": any(place.rglob("*.tar")),
    }
    kinds = [kind for kind, there in found.items() if there]
    if len(kinds) != 1:
        raise FileNotFoundError(
            f"data.reader.init_args.path '{path}': found {' and '.join(kinds) or 'nothing that could be captions'}, "
            f"expected *.parquet, *.tar or one of {', '.join(TABLES)}"
            + (" (data.reader.init_args.format says which)" if kinds else "")
        )
    return kinds[0]
