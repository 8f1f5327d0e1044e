"""The synthetic pool: ring order, sharing between processes, and plain errors."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.synthetic.synthetic_pool import SyntheticPool


def _pool(folder: Path, slots: int = 4, rank: int = 0) -> SyntheticPool:
    return SyntheticPool(folder, slots=slots, image_size=6, num_classes=3, num_action_units=2, rank=rank)


def _samples(*values: int) -> dict:
    n = len(values)
    value = torch.tensor(values)
    return {
        "images": value.to(torch.uint8).view(n, 1, 1, 1).expand(n, 3, 6, 6),
        "label": value % 3,
        "soft_label": torch.nn.functional.one_hot(value % 3, 3).float(),
        "au": torch.stack([value / 255, torch.full((n,), float("nan"))], dim=1),
        "seed": value * 2**40,
        "layout": [f"train-{v}" for v in values],
    }


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    pool = _pool(tmp_path, rank=1)
    assert pool.append(**_samples(5, 7)) == ["syn-1-0", "syn-1-1"]
    assert (pool.filled, pool.written, len(pool)) == (2, 2, 2)
    read = pool.read(torch.tensor([1, 0, 3]))  # slot 3 is slot 1 of the two that are filled
    assert read["image"].shape == (3, 3, 6, 6) and read["image"].dtype == torch.uint8
    assert read["image"][:, 0, 0, 0].tolist() == [7, 5, 7]
    assert read["label"].tolist() == [1, 2, 1] and read["soft_label"].argmax(1).tolist() == [1, 2, 1]
    assert torch.isnan(read["au"][:, 1]).all()
    assert read["sample_id"] == ["syn-1-1", "syn-1-0", "syn-1-1"]
    assert read["layout"] == ["train-7", "train-5", "train-7"]
    assert read["seed"].tolist() == [7 * 2**40, 5 * 2**40, 7 * 2**40]
    assert read["is_synthetic"].all()


def test_the_oldest_are_overwritten(tmp_path: Path) -> None:
    pool = _pool(tmp_path)
    pool.append(**_samples(1, 2, 3))
    pool.append(**_samples(4, 5, 6))
    assert (pool.filled, pool.written) == (4, 6)
    assert pool.read(range(4))["image"][:, 0, 0, 0].tolist() == [5, 6, 3, 4]
    pool.append(**_samples(*range(10, 21)))  # more at once than there are slots
    assert sorted(pool.read(range(4))["image"][:, 0, 0, 0].tolist()) == [17, 18, 19, 20]
    assert sorted(pool.read(range(4))["sample_id"]) == ["syn-0-13", "syn-0-14", "syn-0-15", "syn-0-16"]


def test_empty_pool_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"synthetic pool of rank 2 is empty: enable --synthesis\.enabled"):
        _pool(tmp_path, rank=2).read([0])


def test_a_pickled_pool_maps_the_same_file(tmp_path: Path) -> None:
    pool = _pool(tmp_path)
    copy = pickle.loads(pickle.dumps(pool))
    pool.append(**_samples(9))
    assert copy.read([0])["image"][0, 0, 0, 0] == 9


def _read_in_child(pool: SyntheticPool, begin: Any, answers: Any) -> None:
    begin.wait(10)
    answers.put(pool.read([0, 1])["sample_id"])


def test_a_worker_started_before_sees_what_is_written_after(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    pool, begin, answers = _pool(tmp_path), context.Event(), context.Queue()
    child = context.Process(target=_read_in_child, args=(pool, begin, answers))
    child.start()
    pool.append(**_samples(1, 2))
    begin.set()
    assert answers.get(timeout=10) == ["syn-0-0", "syn-0-1"]
    child.join(10)


def test_a_half_written_slot_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.synthetic.synthetic_pool._TIMEOUT_S", 0.05)
    pool = _pool(tmp_path)
    pool.append(**_samples(1, 2))
    pool._ring["version"][1] += 1
    assert pool.read([0])["sample_id"] == ["syn-0-0"]
    with pytest.raises(RuntimeError, match="half written"):
        pool.read([0, 1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": torch.zeros(2, 3, 5, 6, dtype=torch.uint8)}, r"images has shape \(2, 3, 5, 6\), expected"),
        ({"images": torch.zeros(2, 3, 6, 6)}, "images are torch.float32, expected torch.uint8"),
        ({"label": torch.tensor([0, 3])}, "expected 0…2"),
        ({"soft_label": torch.full((2, 3), 0.5)}, "expected 1"),
        ({"seed": [1]}, "seed has shape 1, expected 2"),
    ],
)
def test_wrong_samples_are_named(tmp_path: Path, wrong: dict, message: str) -> None:
    pool = _pool(tmp_path)
    with pytest.raises(ValueError, match=message):
        pool.append(**{**_samples(1, 2), **wrong})
    assert pool.written == 0


def test_a_deep_path_as_layout_source_is_kept_as_its_beginning_and_a_digest(tmp_path: Path) -> None:
    pool = _pool(tmp_path)
    deep = [f"train/{'sub-folder/' * 20}face-{number}.png" for number in range(2)]
    pool.append(**{**_samples(1, 2), "layout": deep})
    found = pool.read([0, 1])["layout"]
    assert all(name.startswith("train/sub-folder/") and len(name.encode()) == 96 for name in found)
    assert found[0] != found[1]


def test_at_least_one_slot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.pool_size=0"):
        _pool(tmp_path, slots=0)
