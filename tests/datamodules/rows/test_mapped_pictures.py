"""Pictures of Parquet files: the same from a mapped file as from memory, and no object for each row."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datamodules.readers import TableOfPicturesReader
from datamodules.rows import mapped_pictures
from datamodules.rows.mapped_pictures import MappedPictures, PictureColumn
from datamodules.rows.picture_index import FOLDER_VARIABLE


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty faces in four row groups; the eighth cell is empty."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "index"))
    path = tmp_path / "set" / "train.parquet"
    path.parent.mkdir()
    cells = [encoded(seed) for seed in range(30)]
    cells[7] = None  # type: ignore[call-overload]
    table = pa.table({"image": pa.array(cells, pa.binary()), "label": [("happy", "sad")[n % 2] for n in range(30)]})
    pq.write_table(table, path, row_group_size=8)
    return path


def encoded(seed: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_pictures, "_HELD", 0)


def test_mapped_and_held_are_the_same(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = PictureColumn(file, "image")
    assert not list(tmp_path.glob("index/*.arrow"))
    mapped(monkeypatch)
    for _ in range(2):  # written, then found
        column = PictureColumn(file, "image")
        assert len(column) == len(held) == 30 and [column.read(row) for row in range(30)] == [
            held.read(row) for row in range(30)
        ]
    assert column.read(7) is None and column.read(8) == encoded(8)
    assert len(list(tmp_path.glob("index/*.arrow"))) == 1
    images = MappedPictures([column], ["train.parquet"], np.zeros(30), np.arange(30))
    rows = np.array([29, 0, 8])
    again = pickle.loads(pickle.dumps(images.select(rows)))
    assert torch.equal(again.batch(np.arange(3)), images.batch(rows))


@pytest.mark.parametrize("damage", [b"", b"noise" * 100])
def test_a_damaged_map_is_written_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    mapped(monkeypatch)
    PictureColumn(file, "image")
    (place,) = tmp_path.glob("index/*.arrow")
    place.write_bytes(damage or place.read_bytes()[:-50])
    assert PictureColumn(file, "image").read(29) == encoded(29)


def test_a_file_that_changed_has_another_map(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped(monkeypatch)
    PictureColumn(file, "image")
    pq.write_table(pa.table({"image": [encoded(99)] * 3, "label": ["happy"] * 3}), file)
    column = PictureColumn(file, "image")
    assert len(column) == 3 and column.read(2) == encoded(99)


def test_rows_of_a_table_cost_some_tens_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python object for each row would be hundreds; of a million rows that is what a machine has no room for."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "index"))
    mapped(monkeypatch)
    count = 3000
    pictures = [encoded(seed) for seed in range(30)]
    table = {
        "image": [pictures[n % 30] for n in range(count)],
        "label": [("happy", "sad")[n % 2] for n in range(count)],
    }
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table(table), tmp_path / "set" / "train.parquet")
    del table
    reader = TableOfPicturesReader(str(tmp_path / "set"), label_space=["happy", "sad"])
    tracemalloc.start()
    rows = reader.read("train")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == count and held / count < 300


def test_bad_rows_are_named_by_their_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped(monkeypatch)
    reader = TableOfPicturesReader(str(file.parent), label_space=["happy", "sad"], on_bad_sample="skip")
    table = reader.read("train")
    assert len(table) == 29 and [line.partition(": found")[0][-15:] for line in table.report.skipped] == [
        "train.parquet#7"
    ]
    assert table.sample_id[7] == "@train.parquet#8" and table.label.tolist()[:8] == [0, 1, 0, 1, 0, 1, 0, 0]
