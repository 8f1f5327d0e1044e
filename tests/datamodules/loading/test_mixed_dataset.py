"""The mixed data set: whole batches from real rows, synthetic rows and pool slots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.batch import Batch, validate_batch
from datamodules.loading.mixed_dataset import MixedDataset, as_is
from datamodules.rows.grey_or_colour import as_rgb
from datamodules.synthetic.synthetic_pool import SyntheticPool
from tests.fixtures.tiny_data import tiny_table


def _filled_pool(folder: Path, grey: bool) -> SyntheticPool:
    pool = SyntheticPool(folder, slots=4, image_size=8, num_classes=7, num_action_units=41)
    images = torch.randint(0, 256, (4, 1 if grey else 3, 8, 8), dtype=torch.uint8).expand(4, 3, 8, 8)
    label = torch.arange(4)
    pool.append(images, label, torch.eye(7)[label], torch.zeros(4, 41), label, [""] * 4)
    return pool


def test_real_batch_keeps_the_contract() -> None:
    table = tiny_table(20)
    batch = MixedDataset(table).__getitems__([3, 17, 3])
    assert set(batch) == {*Batch.__required_keys__, "affect"}
    assert batch["sample_id"] == ["train-3", "train-17", "train-3"] and not batch["is_synthetic"].any()
    assert batch["image"].shape == (3, 1, 8, 8) and torch.isnan(batch["au"]).all()
    assert np.array_equal(batch["image"][1, 0].numpy(), table.images.array[17])
    batch["image"] = as_rgb(batch["image"]).float() / 255
    validate_batch(batch, table.label_space)


@pytest.mark.parametrize("grey_synthetic", [True, False])
def test_pool_slots_follow_the_real_rows(tmp_path: Path, grey_synthetic: bool) -> None:
    table, pool = tiny_table(20), _filled_pool(tmp_path, grey_synthetic)
    batch = MixedDataset(table, pool).__getitems__([21, 4, 25, 5])  # slot 5 of 4 is slot 1 again
    assert batch["sample_id"] == ["train-4", "train-5", "syn-0-1", "syn-0-1"]
    assert batch["is_synthetic"].tolist() == [False, False, True, True]
    assert torch.equal(as_rgb(batch["image"])[2:], pool.read([1, 1])["image"])
    assert np.array_equal(as_rgb(batch["image"])[0, 2].numpy(), table.images.array[4])
    assert batch["image"].shape[1] == (1 if grey_synthetic else 3)
    assert batch["label"].tolist() == [4, 5, 1, 1] and "happy" in batch["caption"][2]


def test_a_table_of_synthetic_rows() -> None:
    synthetic = replace(tiny_table(5, side=12, grey=False, seed=9), is_synthetic=True)
    dataset = MixedDataset(tiny_table(20), synthetic, image_size=8)
    assert len(dataset) == 25
    batch = dataset.__getitems__([0, 24])
    assert batch["image"].shape == (2, 3, 8, 8) and batch["image"].dtype == torch.uint8
    assert batch["is_synthetic"].tolist() == [False, True]


def test_captions_and_action_units_of_the_table_are_kept() -> None:
    table = replace(tiny_table(3), caption=np.array(["a", "b", "c"]), au=np.full((3, 41), 0.25, dtype=np.float32))
    batch = MixedDataset(table).__getitems__([2, 0])
    assert batch["caption"] == ["c", "a"] and (batch["au"] == 0.25).all()


def test_ratings_of_the_table_are_kept_and_made_faces_have_none(tmp_path: Path) -> None:
    affect = np.array([[0.5, -0.25], [np.nan, 1.0], [0.0, 0.0]], dtype=np.float32)
    table = replace(tiny_table(3), affect=affect)
    batch = MixedDataset(table, _filled_pool(tmp_path, grey=True)).__getitems__([3, 1, 0])
    assert torch.equal(batch["affect"][:2].nan_to_num(nan=9), torch.tensor([[9.0, 1.0], [0.5, -0.25]]))
    assert batch["is_synthetic"][2] and batch["affect"][2].isnan().all()
    beside = MixedDataset(table, replace(tiny_table(2, seed=5), is_synthetic=True)).__getitems__([4, 2])
    assert beside["affect"][0].tolist() == [0.0, 0.0] and beside["affect"][1].isnan().all()
    beside["image"] = as_rgb(beside["image"]).float() / 255
    validate_batch(beside, table.label_space)
    beside["affect"][0, 1] = -2
    with pytest.raises(ValueError, match=r"sample 'train-2': valence or arousal outside \[-1, 1\] \(1 of 2"):
        validate_batch(beside, table.label_space)
    with pytest.raises(ValueError, match=r"train table: valence and arousal of 'train-1' are -2, 0, expected numbers"):
        replace(table, affect=np.array([[0, 0], [-2, 0], [0, 0]], dtype=np.float32))


def test_caption_of_a_row_is_always_the_same() -> None:
    dataset = MixedDataset(tiny_table(20))
    assert dataset.__getitems__(range(20))["caption"][7] == dataset[7]["caption"][0]


def test_no_synthetic_samples() -> None:
    with pytest.raises(IndexError, match="found no synthetic samples, only 20 real rows"):
        MixedDataset(tiny_table(20)).__getitems__([0, 20])


@pytest.mark.parametrize("workers", [0, 1])
def test_through_a_loader(tmp_path: Path, workers: int) -> None:
    dataset = MixedDataset(tiny_table(20), _filled_pool(tmp_path, True))
    batches = list(DataLoader(dataset, batch_size=8, num_workers=workers, collate_fn=as_is))
    assert [len(batch["label"]) for batch in batches] == [8, 8, 8]
    assert batches[0]["image"].shape[1] == 1
    assert sum(int(batch["is_synthetic"].sum()) for batch in batches) == 4
