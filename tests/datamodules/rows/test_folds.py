from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.folds import assign_folds, hash_numbers
from tests.fixtures.tiny_data import TinyReader, tiny_table


def test_folds_are_even_in_every_class_and_do_not_depend_on_the_order() -> None:
    table = tiny_table(103)
    fold = assign_folds(table, 4)
    assert set(np.bincount(fold, minlength=4)) <= {25, 26}
    for label in range(7):
        counts = np.bincount(fold[table.label == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    order = np.random.default_rng(0).permutation(103)
    np.testing.assert_array_equal(assign_folds(table.select(order), 4), fold[order])


def test_duplicates_share_a_fold_whatever_their_labels() -> None:
    table = tiny_table(40)
    hashes = table.content_hash.copy()
    hashes[20:] = hashes[:20]
    fold = assign_folds(replace(table, content_hash=hashes), 5)
    np.testing.assert_array_equal(fold[:20], fold[20:])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.folds=5: found 4 different training images, expected at least 5"):
        assign_folds(tiny_table(4), 5)


def test_hashes_as_numbers_stay_different() -> None:
    assert hash_numbers(["0000000000000001", "ffffffffffffffff", "8000000000000000"]).tolist() == [1, -1, -(2**63)]


def data(fold: int | None, **settings: object) -> ExpressionDataModule:
    tables = {split: tiny_table(count, split) for split, count in (("train", 42), ("val", 14), ("test", 14))}
    folds = None if fold is None else 3
    return ExpressionDataModule(TinyReader(**tables), folds=folds, fold=fold, **settings)  # type: ignore[arg-type]


def test_fit_and_predict_of_all_folds_are_complementary() -> None:
    held_out = []
    for fold in range(3):
        fit, predict = data(fold), data(fold, predict_split="train")
        fit.setup("fit")
        predict.setup("predict")
        assert fit.train_table is not None and predict.train_table is not None
        trained, held = set(fit.train_table.sample_id), set(predict.train_table.sample_id)
        assert not trained & held and len(trained | held) == 42
        assert fit.state_dict()["trained_on"].tolist() == sorted(hash_numbers(fit.train_table.content_hash).tolist())
        assert fit.val_table is not None and len(fit.val_table) == 14  # folds are of the training split alone
        held_out += sorted(held)
    assert len(held_out) == len(set(held_out)) == 42


def test_without_folds_everything_is_trained_on() -> None:
    module = data(None)
    module.setup("fit")
    assert len(module.state_dict()["trained_on"]) == 42


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 3}, r"data.folds=3: expected data.fold with it"),
        ({"fold": 0}, r"data.folds=None: expected data.fold with it, or neither"),
        ({"folds": 1, "fold": 0}, r"data.folds=1: expected at least 2"),
        ({"folds": 3, "fold": 3}, r"data.fold=3: expected a fold in 0…2"),
        ({"folds": 3, "fold": -1}, r"data.fold=-1: expected a fold in 0…2"),
    ],
)
def test_settings_out_of_range(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpressionDataModule(TinyReader(train=tiny_table(14)), **settings)


def test_a_missing_label_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data.label_table '.*nowhere.parquet': no such file"):
        ExpressionDataModule(TinyReader(train=tiny_table(14)), label_table=str(tmp_path / "nowhere.parquet"))


def test_hashes_are_the_same_numbers_whatever_array_they_come_in() -> None:
    hashes = ["0123456789abcdef", "ffffffffffffffff", "0000000000000000", "fedcba9876543210"]
    numbers = hash_numbers(np.array(hashes))
    assert numbers.dtype == np.int64 and [f"{n % 2**64:016x}" for n in numbers.tolist()] == hashes
    assert hash_numbers(hashes).tolist() == hash_numbers(np.array(hashes, dtype="U20")).tolist() == numbers.tolist()
    with pytest.raises(ValueError, match="content hash '0123456789abcdeg': expected 16 hex digits"):
        hash_numbers(np.array([*hashes, "0123456789abcdeg"]))
