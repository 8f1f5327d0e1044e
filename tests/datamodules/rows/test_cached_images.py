"""Pictures that are kept decoded are those that reading gives, whatever happens to what is kept."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers import ImageFolderReader
from datamodules.rows import cached_images
from datamodules.rows.cached_images import CachedImages, cached_table
from datamodules.rows.images import FileImages
from datamodules.rows.sample_table import SampleTable

SIDE = 12
SLOT = 48 + 3 * SIDE * SIDE


@pytest.fixture(autouse=True)
def nothing_in_use() -> Iterator[None]:
    """Begins and ends as a process does that has opened no store."""
    yield
    close_stores()


def close_stores() -> None:
    for store in cached_images._STORES.values():
        store.close()
    cached_images._STORES.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Faces of several sizes, grey and in colour."""
    random = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "set" / "train" / ("happy", "sad")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shape = (20 + number, 30) if number % 3 else (20 + number, 30, 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "set"


def read(root: Path) -> SampleTable:
    return ImageFolderReader(str(root), image_size=SIDE).read("train")


def whole(table: SampleTable) -> torch.Tensor:
    return table.images.batch(np.arange(len(table)))


def without_source(table: SampleTable) -> SampleTable:
    """Returns the table with a source that must not be asked."""
    assert isinstance(table.images, CachedImages)
    table.images.source = _Refusing(len(table))
    return table


class _Refusing:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        raise AssertionError(f"rows {rows} are decoded")

    def select(self, rows: np.ndarray) -> _Refusing:
        return _Refusing(len(rows))


def test_pictures_are_the_same_and_decoded_once(root: Path, tmp_path: Path) -> None:
    table = read(root)
    expected = whole(table)
    cached = cached_table(table, tmp_path / "cache", 1.0)
    assert torch.equal(whole(cached), expected) and whole(cached).is_contiguous()
    again = without_source(cached_table(read(root), tmp_path / "cache", 1.0))
    assert torch.equal(whole(again), expected)
    rows = np.array([7, 3, 3, 11])
    assert torch.equal(again.select(rows).images.batch(np.array([2, 0])), expected[[3, 7]])
    assert torch.equal(pickle.loads(pickle.dumps(again.images)).batch(rows), expected[rows])


def test_names_and_sizes_are_pictures_of_their_own(root: Path, tmp_path: Path) -> None:
    table = read(root)
    first = cached_table(table, tmp_path / "cache", 1.0)
    whole(first)
    named = cached_table(table, tmp_path / "cache", 1.0, ["another"] * len(table))
    with pytest.raises(AssertionError, match="are decoded"):
        whole(without_source(named))
    smaller = cached_table(replace(table, images=FileImages(paths_of(table), 6)), tmp_path / "cache", 1.0)
    assert whole(smaller).shape[-2:] == (6, 6) and torch.equal(
        whole(smaller), FileImages(paths_of(table), 6).batch(np.arange(20))
    )


def paths_of(table: SampleTable) -> list[Path]:
    assert isinstance(table.images, FileImages)
    return [table.images.place(row)[0] for row in range(len(table))]


@pytest.mark.parametrize("damage", ["zeros", "one bit", "cut short", "another's", "noise", "gone"])
def test_what_is_damaged_is_made_again(root: Path, tmp_path: Path, damage: str) -> None:
    expected = whole(read(root))
    whole(cached_table(read(root), tmp_path / "cache", 1.0))
    close_stores()
    (pixels,) = (tmp_path / "cache").glob("*/pixels.bin")
    content = bytearray(pixels.read_bytes())
    if damage == "zeros":
        content[SLOT : 3 * SLOT] = bytes(2 * SLOT)
    elif damage == "one bit":
        content[5 * SLOT + 100] ^= 4
    elif damage == "cut short":
        content = content[: 7 * SLOT + 60]
    elif damage == "another's":
        content[:SLOT] = content[SLOT : 2 * SLOT]
    elif damage == "noise":
        content[:] = np.random.default_rng(0).bytes(len(content))
    pixels.write_bytes(bytes(content)) if damage != "gone" else pixels.unlink()
    mended = cached_table(read(root), tmp_path / "cache", 1.0)
    assert torch.equal(whole(mended), expected)
    close_stores()
    assert torch.equal(whole(without_source(cached_table(read(root), tmp_path / "cache", 1.0))), expected)


@pytest.mark.parametrize("keys", ["cut", "noise", "gone"])
def test_damaged_keys_do_no_harm(root: Path, tmp_path: Path, keys: str) -> None:
    expected = whole(read(root))
    whole(cached_table(read(root), tmp_path / "cache", 1.0))
    close_stores()
    (file,) = (tmp_path / "cache").glob("*/keys.bin")
    size = file.stat().st_size
    if keys == "cut":
        file.write_bytes(file.read_bytes()[: size // 2 + 3])
    elif keys == "noise":
        file.write_bytes(np.random.default_rng(0).bytes(size))
    else:
        file.unlink()
    for _ in range(2):
        assert torch.equal(whole(cached_table(read(root), tmp_path / "cache", 1.0)), expected)
        close_stores()


def test_a_file_that_changed_is_another_picture(root: Path, tmp_path: Path) -> None:
    whole(cached_table(read(root), tmp_path / "cache", 1.0))
    new = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(new).save(root / "train" / "happy" / "0.png")
    assert torch.equal(whole(cached_table(read(root), tmp_path / "cache", 1.0)), whole(read(root)))


def test_the_bound_is_kept_and_told(root: Path, tmp_path: Path) -> None:
    table = read(root)
    bound = 15 * SLOT / 1e9
    with pytest.warns(UserWarning, match=r"found no room for 5 of 20 pictures within data\.decoded_cache_gb="):
        cached = cached_table(table, tmp_path / "cache", bound)
    assert torch.equal(whole(cached), whole(table))
    assert sum(file.stat().st_size for file in (tmp_path / "cache").glob("*/pixels.bin")) <= 15 * SLOT
    close_stores()  # nobody uses these now: others may have their place
    few, others = table.select(np.arange(5)), table.select(np.arange(5, 20))
    whole(cached_table(others, tmp_path / "cache", bound))
    close_stores()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = cached_table(few, tmp_path / "cache", bound)
    assert torch.equal(whole(again), whole(few))


def test_what_is_in_use_is_not_cleared(root: Path, tmp_path: Path) -> None:
    table = read(root)
    bound = 15 * SLOT / 1e9
    first = cached_table(table.select(np.arange(15)), tmp_path / "cache", bound)
    whole(first)
    smaller = replace(table, images=FileImages(paths_of(table), 6))
    with pytest.warns(UserWarning, match="found no room for 20 of 20"):
        cached_table(smaller, tmp_path / "cache", bound)
    whole(without_source(first))
    close_stores()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached_table(smaller, tmp_path / "cache", bound)


def test_a_folder_that_cannot_be_written_to_costs_time_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match=r"data\.decoded_cache '.*': cannot be used"):
        table = cached_table(read(root), tmp_path / "cache", 1.0)
    assert torch.equal(whole(table), whole(read(root)))


def test_a_full_disk_costs_time_alone(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = cached_table(read(root), tmp_path / "cache", 1.0)

    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwritev", no_space)
    with pytest.warns(UserWarning, match="No space left on device: no more pictures are kept"):
        assert torch.equal(whole(table), whole(read(root)))
    assert torch.equal(whole(table), whole(read(root)))


def _fill(root: Path, cache: Path, start: int) -> None:
    table = cached_table(read(root), cache, 1.0)
    order = np.roll(np.arange(len(table)), start)
    assert torch.equal(table.images.batch(order), read(root).images.batch(order))


def test_processes_fill_one_store_together(root: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # as loader processes are
    ranks = [context.Process(target=_fill, args=(root, tmp_path / "cache", 5 * rank)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert torch.equal(whole(without_source(cached_table(read(root), tmp_path / "cache", 1.0))), whole(read(root)))
    assert [file.stat().st_size for file in (tmp_path / "cache").glob("*/keys.bin")] == [20 * 32]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_has_the_same_batches_with_it(root: Path, tmp_path: Path, workers: int) -> None:
    def batches(cache: str | None) -> list[torch.Tensor]:
        data = ExpressionDataModule(
            ImageFolderReader(str(root)),
            batch_size=4,
            image_size=SIDE,
            seed=0,
            val_fraction=0.3,
            num_workers=workers,
            decoded_cache=cache,
        )
        data.setup("fit")
        return [batch["image"] for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]

    expected = batches(None)
    for _ in range(2):
        found = batches(str(tmp_path / "cache"))
        assert len(found) == len(expected) and all(map(torch.equal, found, expected))
    with pytest.raises(ValueError, match=r"data\.decoded_cache_gb=0: expected a number above 0"):
        ExpressionDataModule(ImageFolderReader(str(root)), decoded_cache_gb=0)
