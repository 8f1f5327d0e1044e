"""Sample ids of a million rows, without an object for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.picture_tables.found_table import FoundTable

_AT_ONCE = 65_536
_SMALL = 32 * 2**20
"""Bytes of a numpy array of text up to which it may be one: four for each letter of the longest, in every row."""


def unique_names(table: FoundTable, rows: np.ndarray) -> np.ndarray:
    """Returns ids, str (n,), of some rows: names, with the place where a name comes twice among them or is missing.

    Args:
        table: the rows of a split.
        rows: int64 (n,), which of them.
    """
    names = pc.fill_null(table.name.take(pa.array(rows)), "")
    counted = pc.value_counts(names)
    repeated = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    needs_place = pc.or_(pc.equal(names, ""), pc.is_in(names, value_set=repeated))
    longest = pc.max(pc.utf8_length(names)).as_py() or 0
    if pc.any(needs_place).as_py():
        longest += 1 + max(len(table.cells.place(int(row))) for row in rows[[0, len(rows) // 2, -1]])
    return _as_array(_ids(table, rows, names, needs_place), len(rows), longest)


def _ids(
    table: FoundTable, rows: np.ndarray, names: pa.ChunkedArray, needs_place: pa.ChunkedArray
) -> Iterator[list[str]]:
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        some = zip(rows[part].tolist(), names[part].to_pylist(), needs_place[part].to_pylist(), strict=True)
        yield [f"{name}@{table.cells.place(row)}" if placed else name for row, name, placed in some]


def _as_array(parts: Iterator[list[str]], total: int, longest: int) -> np.ndarray:
    """Returns the texts as one array; of many long ones each takes its own length, where numpy (2) can."""
    text_type = getattr(getattr(np, "dtypes", None), "StringDType", None)
    if text_type is None or 4 * longest * total <= _SMALL:
        return np.concatenate([np.array(part) for part in parts])
    ids, start = np.empty(total, dtype=text_type()), 0
    for part in parts:
        ids[start : start + len(part)] = part
        start += len(part)
    return ids
