"""A later start decodes a few pictures, and never believes an index that the file has left behind."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.picture_tables import parquet_set, table_index
from datamodules.readers import TableOfPicturesReader
from datamodules.rows.images import BadImageError
from datamodules.rows.picture_index import FOLDER_VARIABLE
from datamodules.rows.sample_table import SampleTable
from tests.fixtures.caption_sets import drawn_pairs, write_parquet, write_tar

LONG_AGO = time.time() - 1000
PAIRS = drawn_pairs(28)


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of its own, also of few rows, and stores of few pictures."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "index"))
    monkeypatch.setattr(table_index, "_FEWEST", 2)
    monkeypatch.setattr(parquet_set, "IN_MEMORY", 10)
    return tmp_path / "index"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that are decoded to be inspected."""
    rows: list[int] = []
    inspected = table_index._inspected

    def counted(cells: Any, row: int, path: str) -> Any:
        rows.append(row)
        return inspected(cells, row, path)

    monkeypatch.setattr(table_index, "_inspected", counted)
    return rows


def parquet(root: Path, pairs: list[dict[str, Any]] = PAIRS) -> Path:
    write_parquet(root / "train" / "0.parquet", pairs[:12])
    write_parquet(root / "train" / "1.parquet", pairs[12:])
    return root


def archive(root: Path, pairs: list[dict[str, Any]] = PAIRS) -> Path:
    for name, some in (("0", pairs[:12]), ("1", pairs[12:])):
        members = [(Path(p["path"]).stem, p["image"], p["label"].encode()) for p in some]
        write_tar(
            root / "train" / f"{name}.tar", [m for k, i, c in members for m in ((f"{k}.png", i), (f"{k}.cls", c))]
        )
    return root


def saved(root: Path, pairs: list[dict[str, Any]] = PAIRS) -> Path:
    import datasets

    rows = [{"label": p["label"], "image": {"bytes": p["image"], "path": p["path"]}} for p in pairs]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(root))
    return root


def aged(root: Path) -> Path:
    for file in root.rglob("*"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    return root


def same(one: SampleTable, other: SampleTable) -> bool:
    rows = np.arange(len(one))
    return (
        one.content_hash.tolist() == other.content_hash.tolist()
        and one.sample_id.tolist() == other.sample_id.tolist()
        and one.label.tolist() == other.label.tolist()
        and bool((one.images.batch(rows) == other.images.batch(rows)).all())
    )


@pytest.mark.parametrize("layout", [parquet, archive, saved])
def test_a_warm_start_decodes_none_but_a_sample(
    tmp_path: Path, decoded: list[int], layout: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(aged(layout(tmp_path / "set")))
    cold = TableOfPicturesReader(root).read("train")
    assert sorted(decoded) == list(range(28))
    decoded.clear()
    warm = TableOfPicturesReader(root).read("train")
    assert not decoded and same(cold, warm)
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    with pytest.warns(UserWarning, match="held in memory") if layout is parquet else contextlib.nullcontext():
        assert same(cold, TableOfPicturesReader(root).read("train"))
    assert len(decoded) == 28


def test_a_file_that_changed_is_decoded_again_and_the_others_are_not(tmp_path: Path, decoded: list[int]) -> None:
    root = aged(parquet(tmp_path / "set"))
    TableOfPicturesReader(str(root)).read("train")
    decoded.clear()
    write_parquet(root / "train" / "1.parquet", PAIRS[12:20])
    os.utime(root / "train" / "1.parquet", (LONG_AGO + 5, LONG_AGO + 5))
    table = TableOfPicturesReader(str(root)).read("train")
    assert len(table) == 20 and sorted(decoded) == list(range(12, 20))


def bitmaps(order: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the faces in another order, as files of one length."""
    pairs = []
    for pair, place in zip(PAIRS, order, strict=True):
        file = io.BytesIO()
        Image.open(io.BytesIO(PAIRS[place]["image"])).save(file, "BMP")
        pairs.append({**pair, "image": file.getvalue()})
    return pairs


def plain_parquet(root: Path, pairs: list[dict[str, Any]]) -> Path:
    """Writes one file without anything that makes its length depend on the pictures."""
    root.mkdir(parents=True, exist_ok=True)
    columns = {"image": [pair["image"] for pair in pairs], "label": [pair["label"] for pair in pairs]}
    settings = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table(columns), root / "train.parquet", **settings)
    return root


@pytest.mark.parametrize("layout", [plain_parquet, archive])
def test_another_file_of_the_same_length_and_time_is_found_out(
    tmp_path: Path, layout: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    root = aged(layout(tmp_path / "set", bitmaps(range(28))))
    TableOfPicturesReader(str(root)).read("train")
    before = {file: file.stat() for file in root.rglob("*") if file.is_file()}
    aged(layout(root, bitmaps(range(27, -1, -1))))
    assert all(file.stat().st_size == then.st_size for file, then in before.items())
    with pytest.warns(UserWarning, match=r"found another picture in row \d+ than it says, in a file of the same"):
        table = TableOfPicturesReader(str(root)).read("train")
    known = TableOfPicturesReader(str(aged(layout(tmp_path / "new", bitmaps(range(27, -1, -1)))))).read("train")
    assert same(table, known)


def test_bad_pictures_are_named_at_every_start(tmp_path: Path, decoded: list[int]) -> None:
    pairs = [*PAIRS[:9], {**PAIRS[9], "image": b"no picture"}, {**PAIRS[10], "image": b""}, *PAIRS[11:]]
    root = aged(parquet(tmp_path / "set", pairs))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"0.parquet#9: found 10 bytes that .*\(2 bad of 28 samples"):
            TableOfPicturesReader(str(root)).read("train")
    assert sorted(decoded[-2:]) == [9, 10]
    table = TableOfPicturesReader(str(root), on_bad_sample="skip").read("train")
    assert len(table) == 26 and "0010.png" not in table.sample_id.tolist()


def test_a_damaged_store_is_made_again(tmp_path: Path, index: Path) -> None:
    root = str(aged(parquet(tmp_path / "set")))
    known = TableOfPicturesReader(root).read("train")
    stores = sorted(index.glob("*.pictures"))
    assert len(stores) == 2
    whole = stores[0].read_bytes()
    for damage in (whole[:-30], whole[:200], b"", whole[100:], whole[:-230] + b"\xff" + whole[-229:]):
        stores[0].write_bytes(damage)
        assert same(known, TableOfPicturesReader(root).read("train"))
        assert stores[0].read_bytes() == whole


def test_a_picture_that_is_damaged_in_its_store_is_never_shown(tmp_path: Path, index: Path) -> None:
    table = TableOfPicturesReader(str(aged(parquet(tmp_path / "set")))).read("train")
    store = min(index.glob("*.pictures"), key=lambda path: path.stat().st_size)
    whole = store.read_bytes()
    store.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(BadImageError, match=r"0.parquet#0: cannot be read \(the copy '.*' is damaged: once deleted"):
        table.images.batch(np.arange(28))


def test_pictures_go_to_loader_processes_as_a_path(tmp_path: Path) -> None:
    table = TableOfPicturesReader(str(aged(parquet(tmp_path / "set")))).read("train")
    pictures = sum(len(pair["image"]) for pair in PAIRS)
    sent = pickle.dumps(table.images.select(np.arange(20)))
    assert len(sent) < pictures / 4
    assert (pickle.loads(sent).batch(np.arange(3)) == table.images.batch(np.arange(3))).all()
