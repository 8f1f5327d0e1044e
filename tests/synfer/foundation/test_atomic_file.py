from __future__ import annotations

from pathlib import Path

import pytest

from synfer.foundation.atomic_file import atomic_write


def test_it_is_there_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.parquet"
    with atomic_write(path) as partial:
        partial.write_text("half")
        assert not list(path.parent.glob("*.parquet"))
    assert path.read_text() == "half" and [p.name for p in path.parent.iterdir()] == ["a.parquet"]


def test_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
