"""Rows on their way into shards: as many files as their number asks for, in order, and each row once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules.synthetic import shard_stream
from datamodules.synthetic.shard_stream import ShardStream
from datamodules.synthetic.synthetic_rows import SyntheticRows, table_of
from datamodules.synthetic.synthetic_shards import begin_set, finished_indices, first_rows
from synfer.faces.expressions import LABEL_SPACES

BASIC7 = LABEL_SPACES["basic7"]


def rows(first: int, n: int) -> SyntheticRows:
    index = np.arange(first, first + n)
    return SyntheticRows(
        index=index,
        sample_id=[f"syn-1-{i:06d}" for i in index],
        image=np.zeros((n, 4, 4, 3), dtype=np.uint8),
        label=[BASIC7[i % 7] for i in index],
        soft_label=np.eye(7)[index % 7],
        label_space=BASIC7,
        caption=["a face"] * n,
        au=np.full((n, 2), np.nan),
        au_names=("AU1", "AU12"),
        seed=1,
        layout_source=[""] * n,
        kept=index % 2 == 0,
        votes={"one": np.full((n, 7), 0.25), "two": np.tile(np.arange(7) / 21, (n, 1))},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("data/*"))


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
def test_shards_are_full_whatever_the_batch(tmp_path: Path, batch: int) -> None:
    begin_set(tmp_path, 40)
    stream = ShardStream(tmp_path, faces=16)
    for first in range(0, 40, batch):
        stream.add(table_of(rows(first, min(batch, 40 - first))))
    stream.flush()
    stream.flush()
    assert names(tmp_path) == ["00000000-16.parquet", "00000016-16.parquet", "00000032-8.parquet"]
    assert finished_indices(tmp_path).tolist() == list(range(40))
    assert (stream.written, stream.kept) == (40, 20)


def test_slow_rows_do_not_wait_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(shard_stream.time, "monotonic", lambda: now[0])
    begin_set(tmp_path, 8)
    stream = ShardStream(tmp_path, seconds=10)
    for first, passes in ((0, 9), (2, 1), (4, 30), (6, 0)):
        now[0] += passes
        stream.add(table_of(rows(first, 2)))
    assert names(tmp_path) == ["00000000-2.parquet", "00000002-4.parquet"]  # the last two rows wait


def test_large_pictures_close_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_stream, "SHARD_BYTES", 1)
    begin_set(tmp_path, 4)
    stream = ShardStream(tmp_path)
    for first in (0, 2):
        stream.add(table_of(rows(first, 2)))
    assert names(tmp_path) == ["00000000-2.parquet", "00000002-2.parquet"]


def test_cells_are_what_they_were_made_of(tmp_path: Path) -> None:
    begin_set(tmp_path, 3)
    stream = ShardStream(tmp_path)
    stream.add(table_of(rows(0, 3)))
    stream.flush()
    (shard,) = tmp_path.glob("data/*")
    found = pq.read_table(shard).to_pylist()
    assert found[1]["votes"] == [
        {"voter": "one", "probabilities": dict.fromkeys(BASIC7, 0.25)},
        {"voter": "two", "probabilities": {n: pytest.approx(k / 21) for k, n in enumerate(BASIC7)}},
    ]
    assert found[2]["soft_label"] == {name: float(name == BASIC7[2]) for name in BASIC7}
    assert found[0]["au"] == {"AU1": None, "AU12": None} and found[0]["layout_source"] is None
    assert [row["label"] for row in first_rows(shard, ["label"])] == list(BASIC7[:3])
