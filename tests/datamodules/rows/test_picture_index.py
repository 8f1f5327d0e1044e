from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.rows import picture_index
from datamodules.rows.images import BadImageError, Box
from datamodules.rows.picture_index import FOLDER_VARIABLE, Inspected, inspect_pictures

LONG_AGO = time.time() - 1000


class Decoder:
    """Counts the pictures that are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._inspect = picture_index._inspect
        monkeypatch.setattr(picture_index, "_inspect", self)

    def __call__(self, path: Path, box: Box | None) -> Inspected | BadImageError:
        self.count += 1
        return self._inspect(path, box)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "index"))
    monkeypatch.setattr(picture_index, "_FEWEST", 2)
    monkeypatch.setattr(picture_index, "_TRIED_AGAIN", 2)
    for number in range(12):
        write(tmp_path / "set" / f"{number}.png", number)
    return tmp_path / "set"


def write(path: Path, seed: int, when: float = LONG_AGO) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)).save(path)
    os.utime(path, (when, when))


def files(root: Path) -> Sequence[Path]:
    return sorted(root.glob("*.png"))


def test_a_second_start_decodes_a_few_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(monkeypatch)
    first = inspect_pictures(files(root), root)
    assert decoder.count == 12 and isinstance(first[0], Inspected) and (first[0].height, first[0].width) == (8, 6)
    assert inspect_pictures(files(root), root) == first
    assert decoder.count == 12 + 2


def test_what_changed_or_came_is_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inspect_pictures(files(root), root)
    write(root / "3.png", 99, LONG_AGO + 5)
    write(root / "new.png", 100)
    (root / "0.png").unlink()
    decoder = Decoder(monkeypatch)
    after = inspect_pictures(files(root), root)
    assert decoder.count == 2 + 2
    assert len(after) == 12 and sum(one in before for one in after) == 10
    assert inspect_pictures(files(root), root) == after


def test_a_box_is_a_picture_of_its_own(root: Path) -> None:
    whole = inspect_pictures(files(root), root)
    boxes: list[Box | None] = [(0, 0, 4, 4)] * 12
    cut = inspect_pictures(files(root), root, boxes)
    assert all(isinstance(one, Inspected) and (one.height, one.width) == (4, 4) for one in cut)
    assert inspect_pictures(files(root), root) == whole and inspect_pictures(files(root), root, boxes) == cut


def test_bad_pictures_are_named_at_every_start(root: Path) -> None:
    (root / "5.png").write_bytes(b"no picture")
    os.utime(root / "5.png", (LONG_AGO, LONG_AGO))
    for _ in range(2):
        bad = [str(one) for one in inspect_pictures(files(root), root) if isinstance(one, BadImageError)]
        assert len(bad) == 1 and "5.png: found 10 bytes that cannot be decoded" in bad[0]


def test_a_picture_that_changed_in_secret_throws_the_index_away(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect_pictures(files(root), root)
    monkeypatch.setattr(picture_index, "_TRIED_AGAIN", 12)
    size = (root / "4.png").stat().st_size
    for seed in range(1000, 1100):  # noise is hardly compressed: another picture of as many bytes is soon found
        write(root / "4.png", seed)
        if (root / "4.png").stat().st_size == size:
            break
    assert (root / "4.png").stat().st_size == size
    with pytest.warns(UserWarning, match=r"picture index '.*': found another picture in '.*4.png' than it says"):
        found = inspect_pictures(files(root), root)
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert found == inspect_pictures(files(root), root)


def test_a_file_that_was_just_written_is_not_trusted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "0.png", 7, time.time())
    inspect_pictures(files(root), root)
    decoder = Decoder(monkeypatch)
    inspect_pictures(files(root), root)
    assert decoder.count == 1 + 2


@pytest.mark.parametrize("damage", ["cut", "garbage", "another format"])
def test_a_damaged_index_is_made_anew(root: Path, tmp_path: Path, damage: str) -> None:
    expected = inspect_pictures(files(root), root)
    (index,) = (tmp_path / "index").glob("*.parquet")
    if damage == "another format":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": [1]}), index)
    else:
        index.write_bytes(index.read_bytes()[:-20] if damage == "cut" else b"garbage")
    assert inspect_pictures(files(root), root) == expected


def test_ranks_that_start_together_decode_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(monkeypatch)
    found: list[Sequence[Inspected | BadImageError]] = []
    ranks = [threading.Thread(target=lambda: found.append(inspect_pictures(files(root), root))) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert found[0] == found[1] == found[2] and decoder.count == 12 + 2 * 2


def test_without_a_folder_to_write_to_nothing_is_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = inspect_pictures(files(root), root)
    (tmp_path / "file").write_text("")
    for folder in ("", str(tmp_path / "file" / "below")):
        monkeypatch.setenv(FOLDER_VARIABLE, folder)
        assert inspect_pictures(files(root), root) == expected
