from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.picture_tables import row_names
from datamodules.readers import TableOfPicturesReader
from tests.fixtures.caption_sets import drawn_pairs, write_parquet

PAIRS = drawn_pairs(4)


@pytest.mark.parametrize("small", [10**6, 0])
def test_names_that_come_twice_or_not_at_all_get_their_place(
    tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_names, "_SMALL", small)
    pairs = [{**PAIRS[0], "path": None}, {**PAIRS[1], "path": "a.png"}, {**PAIRS[2], "path": "a.png"}, PAIRS[3]]
    table = TableOfPicturesReader(str(write_parquet(tmp_path / "x.parquet", pairs))).read("train")
    assert table.sample_id.tolist() == ["@x.parquet#0", "a.png@x.parquet#1", "a.png@x.parquet#2", "0003.png"]
    assert table.select(np.array([3, 1])).sample_id.tolist() == ["0003.png", "a.png@x.parquet#1"]
