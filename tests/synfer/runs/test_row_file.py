from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from synfer.runs.row_file import Rows, how_they_differ, read_rows, row_file, write_rows


def rows(ids: str, hashes: str, labels: str) -> Rows:
    return Rows(*(np.array(list(text)) for text in (ids, hashes, labels)))


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = row_file(tmp_path, "val")
    assert path == tmp_path / "rows" / "val.parquet" and row_file(tmp_path, "val", "test").name == "val.test.parquet"
    ids, hashes = np.array(["a/1.png", "ü"]), np.array(["0" * 16, "f" * 16])
    write_rows(path, ids, hashes, np.array([1, -1]), ("happy", "sad"), np.array(["p1", "p2"]))
    found = read_rows(path)
    assert found.sample_id.tolist() == ids.tolist() and found.content_hash.tolist() == hashes.tolist()
    assert found.label.tolist() == ["sad", ""]
    told = pq.read_schema(path)
    assert told.names == ["sample_id", "content_hash", "label", "group"]
    assert told.metadata[b"classes"] == b'{"happy": 0, "sad": 1}' and told.metadata[b"rows"] == b"2"
    assert [file.name for file in path.parent.iterdir()] == ["val.parquet"]
    path.write_text("no rows")
    with pytest.raises(ValueError, match=r"rows of a run '.*val.parquet': found a file that is not Parquet, expected"):
        read_rows(path)


def test_in_what_rows_differ() -> None:
    one = rows("abcd", "wxyz", "hhss")
    assert how_they_differ(one, rows("dcba", "zyxw", "sshh")) == ""  # in another order
    assert how_they_differ(one, rows("ABCD", "wxyz", "hhss")) == ""  # under other names
    assert how_they_differ(one, rows("abc", "wxy", "hhs")) == "4 rows against 3, 1 in the first alone"
    assert how_they_differ(one, rows("abcd", "wxyz", "hhhs")) == "1 with another label"
    assert how_they_differ(one, rows("abcd", "wxyq", "hhss")) == (
        "1 in the first alone, 1 in the second alone, 1 of one name with other pixels"
    )
