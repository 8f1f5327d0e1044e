from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer.labels.label_table import LabelTable, read_label_table, write_label_table
from tests.fixtures.tiny_data import BASIC7, tiny_table

ROWS = tiny_table(21)


def soft(n: int = 21, k: int = 7) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(k), n).astype(np.float32)


def label_table(**changes: object) -> LabelTable:
    table = LabelTable(
        ROWS.sample_id, ROWS.content_hash, BASIC7, ROWS.label, soft(), {"a": soft(), "runs/b.ckpt": soft()[::-1]}
    )
    return replace(table, **changes)  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, table = tmp_path / "sub" / "labels.parquet", label_table()
    read = read_label_table(write_label_table(path, table))
    assert read.label_space == BASIC7 and list(read.votes) == ["a", "runs/b.ckpt"]
    for name in ("sample_id", "content_hash", "old_label", "soft_label", "label"):
        np.testing.assert_array_equal(getattr(read, name), getattr(table, name))
    np.testing.assert_array_equal(read.votes["runs/b.ckpt"], table.votes["runs/b.ckpt"])
    raw = pq.read_table(path).to_pylist()[3]
    assert raw["old_label"] == "surprise" and raw["label"] == BASIC7[int(soft()[3].argmax())]
    assert raw["soft_label"]["happy"] == pytest.approx(float(soft()[3, 1]))
    assert raw["confidence"] == pytest.approx(float(soft()[3].max()))
    assert not list(path.parent.glob(".*"))


def test_equal_probabilities_keep_the_old_label() -> None:
    even = np.full((21, 7), 1 / 7, dtype=np.float32)
    np.testing.assert_array_equal(label_table(soft_label=even).label, ROWS.label)


def test_files_that_are_no_label_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_label_table(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="found a file that is not Parquet"):
        read_label_table(path)
    good = pq.read_table(write_label_table(path, label_table()))
    pq.write_table(good.drop_columns(["votes"]), path)
    with pytest.raises(ValueError, match="found no column 'votes'"):
        read_label_table(path)
    pq.write_table(good.slice(0, 0), path)
    with pytest.raises(ValueError, match="found 0 rows"):
        read_label_table(path)
    pq.write_table(pa.concat_tables([good, good]), path)
    with pytest.raises(ValueError, match="found 21 sample ids twice"):
        read_label_table(path)
    write_label_table(path, label_table(soft_label=soft() * 2))
    with pytest.raises(ValueError, match=r"soft label of 'train-0' .* expected probabilities that sum to 1 \(21"):
        read_label_table(path)
