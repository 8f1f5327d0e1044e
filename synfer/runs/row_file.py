"""The rows that a run was trained or scored on, a Parquet file a split: ids, content hashes, labels, groups.

``summary.json`` holds one hash of all rows, which says that two runs differ; this file says in which rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import reading

_EXPECTED = "rows as a run writes them"
_COLUMNS = ("sample_id", "content_hash", "label")


@dataclass(frozen=True)
class Rows:
    """Rows of one split.

    Attributes:
        sample_id: str (N,).
        content_hash: str (N,).
        label: str (N,), names; "" = not known.
    """

    sample_id: np.ndarray
    content_hash: np.ndarray
    label: np.ndarray


def row_file(run_dir: str | Path, split: str, task: str | None = None) -> Path:
    """Returns where the rows of a split lie.

    Args:
        run_dir: the run folder.
        split: train, val or test.
        task: validate, test or predict in the folder of a fit, whose own file stays; None = the run's own.
    """
    return Path(run_dir) / "rows" / f"{split}{f'.{task}' if task else ''}.parquet"


def write_rows(
    path: Path,
    sample_id: np.ndarray,
    content_hash: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    group: np.ndarray | None = None,
) -> None:
    """Writes the rows of a split, whole or not at all.

    Args:
        path: the file; missing folders are made.
        sample_id: str (N,).
        content_hash: str (N,).
        label: int64 (N,), index into ``names``; −1 = not known.
        names: of the classes.
        group: str (N,), whom each row shows; None = not known.

    Raises:
        OSError: no space.
    """
    import pyarrow as pa  # seconds that whoever only reads a summary has no use for
    import pyarrow.parquet as pq

    columns = {"sample_id": _text(sample_id), "content_hash": _text(content_hash)}
    codes = pa.array(np.where(label < 0, len(names), label), pa.int32())
    columns["label"] = pa.DictionaryArray.from_arrays(codes, pa.array([*names, ""]))
    if group is not None:
        columns["group"] = _text(group).dictionary_encode()
    counts = {name: int((label == code).sum()) for code, name in enumerate(names)}
    told = {"rows": str(len(label)), "classes": json.dumps(counts)}
    table = pa.table(columns).replace_schema_metadata(told)
    with atomic_write(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_rows(path: str | Path) -> Rows:
    """Returns the rows that a run has written.

    Raises:
        FileNotFoundError: no file there.
        ValueError: another file; one line.
    """
    import pyarrow.parquet as pq

    with reading("rows of a run", path, _EXPECTED), Path(path).open("rb") as file:
        table = pq.read_table(file, columns=list(_COLUMNS))
        return Rows(*(np.array(table[name].to_pylist(), dtype=str) for name in _COLUMNS))


def how_they_differ(first: Rows, second: Rows) -> str:
    """Returns in what two lists of rows differ, by their pixels; "" where they hold the same pixels and labels."""
    said = []
    if len(first.label) != len(second.label):
        said.append(f"{len(first.label):,} rows against {len(second.label):,}")
    for one, other, which in ((first, second, "first"), (second, first, "second")):
        alone = int((~np.isin(one.content_hash, other.content_hash)).sum())
        if alone:
            said.append(f"{alone:,} in the {which} alone")
    label_of = dict(zip(second.content_hash.tolist(), second.label.tolist(), strict=True))
    pairs = zip(first.content_hash.tolist(), first.label.tolist(), strict=True)
    relabelled = sum(label_of.get(digest, label) != label for digest, label in pairs)
    if relabelled:
        said.append(f"{relabelled:,} with another label")
    pixels = dict(zip(second.sample_id.tolist(), second.content_hash.tolist(), strict=True))
    named = zip(first.sample_id.tolist(), first.content_hash.tolist(), strict=True)
    changed = sum(pixels.get(name, digest) != digest for name, digest in named)
    if changed:
        said.append(f"{changed:,} of one name with other pixels")
    return ", ".join(said)


def _text(values: np.ndarray):  # type: ignore[no-untyped-def]  # noqa: ANN202 (Arrow is imported when it is needed)
    import pyarrow as pa

    parts = [pa.array(values[start : start + 65_536].tolist(), pa.string()) for start in range(0, len(values), 65_536)]
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())
