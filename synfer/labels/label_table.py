"""Label tables: what each row of a data set was labelled, and what it is labelled now.

A Parquet file with one row per sample: ``sample_id``, ``content_hash``, ``old_label`` (name), ``label`` (name of the
most probable class), ``soft_label`` (struct, probability by name), ``confidence`` (of ``label``) and ``votes`` (struct,
voter → struct, probability by name). The metadata entry ``generators`` is JSON: voter → what its generator was trained
on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from synfer.faces.expressions import map_label_space
from synfer.foundation.atomic_file import atomic_write
from synfer.foundation.file_reading import reading
from synfer.foundation.parquet_file import read_parquet
from synfer.labels.tie_break import argmax_with_tie_break

_EXPECTED = "one written by train.py predict"
COLUMNS = ("sample_id", "content_hash", "old_label", "label", "soft_label", "confidence", "votes")


@dataclass(frozen=True)
class LabelTable:
    """Old and new labels of N rows.

    Attributes:
        sample_id: str (N,), unique.
        content_hash: str (N,).
        label_space: K names.
        old_label: int64 (N,).
        soft_label: float32 (N, K), rows sum to 1.
        votes: voter → float32 (N, K).
        generators: voter → {"rows": how many of the N its generator was trained on, None = not recorded, "of": N,
            "label_space", "reader", "labels"}; voters without a generator are missing.
    """

    sample_id: np.ndarray
    content_hash: np.ndarray
    label_space: tuple[str, ...]
    old_label: np.ndarray
    soft_label: np.ndarray
    votes: Mapping[str, np.ndarray] = field(default_factory=dict)
    generators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def label(self) -> np.ndarray:
        """Most probable class, int64 (N,); where several are, the old label if it is one of them, else the first."""
        return argmax_with_tie_break(torch.tensor(self.soft_label), torch.tensor(self.old_label)).numpy()


def write_label_table(path: str | Path, table: LabelTable) -> Path:
    """Writes a label table: under another name first, so that it is there as a whole or not at all."""
    path = Path(path)
    names = np.array(table.label_space)
    columns = {
        "sample_id": pa.array(table.sample_id.tolist(), pa.string()),
        "content_hash": pa.array(table.content_hash.tolist(), pa.string()),
        "old_label": pa.array(names[table.old_label].tolist(), pa.string()),
        "label": pa.array(names[table.label].tolist(), pa.string()),
        "soft_label": _by_name(table.soft_label, table.label_space),
        "confidence": pa.array(table.soft_label.max(1).astype(np.float32)),
    }
    if table.votes:
        votes = [_by_name(probabilities, table.label_space) for probabilities in table.votes.values()]
        columns["votes"] = pa.StructArray.from_arrays(votes, names=list(table.votes))
    else:
        columns["votes"] = pa.nulls(len(table))
    with atomic_write(path) as partial:
        pq.write_table(
            pa.table(columns, metadata={"generators": json.dumps(dict(table.generators))}),
            partial,
            write_page_checksum=True,
        )
    return path


def read_label_table(path: str | Path) -> LabelTable:
    """Reads a label table.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a label table; the line says what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"label table '{path}': no such file, expected one written by train.py predict")
    with reading("label table", path, _EXPECTED):
        return _parsed(path, read_parquet(path, "label table", _EXPECTED))


def _parsed(path: Path, read: pa.Table) -> LabelTable:
    missing = [name for name in COLUMNS if name not in read.column_names]
    if missing:
        raise ValueError(
            f"label table '{path}': found no column '{missing[0]}' (found {', '.join(read.column_names)}), expected it"
        )
    if read.num_rows == 0 or not pa.types.is_struct(read.schema.field("soft_label").type):
        raise ValueError(
            f"label table '{path}': found {read.num_rows} rows with soft_label of type "
            f"{read.schema.field('soft_label').type}, expected rows with probabilities by name (a struct)"
        )
    space, soft_label = _from_struct(read["soft_label"].combine_chunks())
    bad = np.flatnonzero(~(np.abs(soft_label.sum(1) - 1) < 1e-3) | (soft_label < 0).any(1))
    ids = np.array(read["sample_id"].to_pylist())
    if len(bad):
        raise ValueError(
            f"label table '{path}': soft label of '{ids[bad[0]]}' is {soft_label[bad[0]].tolist()}, expected "
            f"probabilities that sum to 1 ({len(bad)} such rows)"
        )
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"label table '{path}': found {len(ids) - len(np.unique(ids))} sample ids twice")
    old = read["old_label"].to_pylist()
    unknown = sorted(set(old) - set(space))
    if unknown:
        raise ValueError(f"label table '{path}': found old label '{unknown[0]}', expected one of {', '.join(space)}")
    votes = {}
    if pa.types.is_struct(read.schema.field("votes").type):
        struct = read["votes"].combine_chunks()
        for index, kind in enumerate(struct.type):
            own, probabilities = _from_struct(struct.field(index))
            votes[kind.name] = probabilities[:, map_label_space(own, space)]
    return LabelTable(
        sample_id=ids,
        content_hash=np.array(read["content_hash"].to_pylist()),
        label_space=space,
        old_label=np.array([space.index(name) for name in old], dtype=np.int64),
        soft_label=soft_label,
        votes=votes,
        generators=json.loads((read.schema.metadata or {}).get(b"generators", b"{}")),
    )


def _by_name(probabilities: np.ndarray, names: tuple[str, ...]) -> pa.StructArray:
    columns = [pa.array(np.ascontiguousarray(probabilities[:, i], dtype=np.float32)) for i in range(len(names))]
    return pa.StructArray.from_arrays(columns, names=list(names))


def _from_struct(struct: pa.StructArray) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of a struct column and float32 (N, K)."""
    names = tuple(kind.name for kind in struct.type)
    values = [np.asarray(struct.field(i).to_numpy(zero_copy_only=False), dtype=np.float32) for i in range(len(names))]
    return names, np.stack(values, 1)
