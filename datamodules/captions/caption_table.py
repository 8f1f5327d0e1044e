"""Tables of captions: one row per sample, ``sample_id`` and ``caption``, as Parquet or CSV."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import FileError, reading
from synfer.foundation.parquet_file import read_parquet

_KIND = "table of captions"
_EXPECTED = "one with the columns sample_id and caption"
_COLUMNS = ("sample_id", "caption")
_WRITTEN_BY = b"written_by"


def write_caption_table(path: str | Path, captions: Mapping[str, str], written_by: Mapping[str, Any]) -> Path:
    """Writes a table of captions, as a whole or not at all.

    Args:
        path: the file; one that ends in ``.csv`` is CSV, any other Parquet.
        captions: sample id → caption.
        written_by: what wrote them (model, prompt, …), in plain types; kept in Parquet alone.
    """
    path = Path(path)
    with atomic_write(path) as partial:
        if path.suffix.lower() == ".csv":
            with partial.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(_COLUMNS)
                rows.writerows(captions.items())
        else:
            columns = {
                "sample_id": pa.array(list(captions), pa.string()),
                "caption": pa.array(list(captions.values()), pa.string()),
            }
            metadata = {_WRITTEN_BY: json.dumps(dict(written_by), sort_keys=True)}
            pq.write_table(pa.table(columns, metadata=metadata), partial, write_page_checksum=True)
    return path


def read_caption_table(path: str | Path, with_empty: bool = False) -> dict[str, str]:
    """Returns sample id → caption.

    Args:
        path: the file.
        with_empty: whether empty captions count; else they are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it lacks a column, or has a sample id twice.
    """
    path = Path(path)
    with reading(_KIND, path, _EXPECTED):
        ids, captions = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
        twice = [name for name, times in Counter(ids).items() if times > 1]
        if twice:
            raise FileError(f"{_KIND} '{path}': found sample id '{twice[0]}' more than once, expected each once")
        texts = ((str(name), (text or "").strip()) for name, text in zip(ids, captions, strict=True))
        return {name: text for name, text in texts if text or with_empty}


def written_by(path: str | Path) -> dict[str, Any]:
    """Returns what :func:`write_caption_table` was told of the origin of a Parquet table; {} where it was not.

    Raises:
        FileNotFoundError, ValueError: no such file, or no Parquet.
    """
    with reading(_KIND, path, _EXPECTED):
        return json.loads((pq.read_schema(path).metadata or {}).get(_WRITTEN_BY, b"{}"))  # type: ignore[no-any-return]


def _read_parquet(path: Path) -> tuple[list[Any], list[Any]]:
    table = read_parquet(path, _KIND, _EXPECTED, _COLUMNS)
    return table["sample_id"].to_pylist(), table["caption"].to_pylist()


def _read_csv(path: Path) -> tuple[list[Any], list[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise FileError(f"{_KIND} '{path}': found no column '{missing[0]}', expected {_EXPECTED}")
        read = [(row["sample_id"], row["caption"]) for row in rows]
    return [name for name, _ in read], [text for _, text in read]
