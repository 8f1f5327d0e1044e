"""Which rows a run trains on, and by which labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.rows.sample_table import one_hot
from datamodules.training_rows import TrainingRows, join_label_table
from synfer.labels.label_table import LabelTable, write_label_table
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table
from tests.synfer.labels.test_label_table import ROWS, label_table, soft


def test_folds_share_no_row_and_lose_none() -> None:
    held_out = []
    for fold in range(3):
        rows = TrainingRows(folds=3, fold=fold)
        inside, outside = (set(part(ROWS).sample_id) for part in (rows.inside_fold, rows.outside_fold))
        assert not inside & outside and len(inside | outside) == len(ROWS)
        held_out += sorted(inside)
    assert sorted(held_out) == sorted(ROWS.sample_id)
    assert TrainingRows().outside_fold(ROWS) is TrainingRows().inside_fold(ROWS) is ROWS


def test_duplicates_go_before_a_share_is_taken() -> None:
    twin = ROWS.select(np.array([4]))
    chosen, report = TrainingRows(drop_duplicates=True, training_fraction=0.5).choose(ROWS, [twin], seed=1)
    assert report.rows_to_drop.tolist() == [4] and ROWS.sample_id[4] not in chosen.sample_id
    assert len(chosen) == 6 * 2 + 1  # of three in each class, and of two in the fifth
    kept, _ = TrainingRows().choose(ROWS, [twin], seed=1)
    assert kept is ROWS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 3}, r"data\.folds=3: expected data\.fold with it"),
        ({"folds": 3, "fold": 3}, r"data\.fold=3: expected a fold in 0…2"),
        ({"training_fraction": 0.0}, r"data\.training_fraction=0\.0: expected a number in \(0, 1\]"),
        ({"imbalance": 0.5}, r"data\.imbalance=0\.5: expected a number of at least 1, or null"),
        ({"imbalance": float("inf")}, r"data\.imbalance=inf: expected a number of at least 1"),
        ({"imbalance": 2.0, "imbalance_largest": 0}, r"data\.imbalance_largest=0: expected at least 1, or null"),
        ({"imbalance_largest": 5}, r"data\.imbalance_largest=5: expected data\.imbalance with it"),
        ({"near_duplicates": 0.95}, r"data\.near_duplicates=0\.95: expected data\.drop_duplicates=true with it"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingRows(**settings)


def test_a_long_tail_of_the_rows(caplog: pytest.LogCaptureFixture) -> None:
    label = np.repeat([4, 0, 2], [40, 30, 12])
    rows = replace(tiny_table(82), label=label, soft_label=one_hot(label, 7))
    twin = rows.select(np.array([0, 1, 70]))
    with caplog.at_level("INFO"):
        chosen, _ = TrainingRows(drop_duplicates=True, imbalance=4.0).choose(rows, [twin], seed=1)
    found = {name: count for name, count in chosen.class_counts().items() if count}
    assert found == {"neutral": 19, "sad": 10, "fear": 38}  # of those that are left without duplicates
    assert not set(chosen.sample_id) & set(twin.sample_id)
    assert (
        "data.imbalance=4: 67 training rows, 38 fear, 19 neutral, 10 sad; of fear there are no more; "
        "no row at all of happy, surprise, disgust, anger" in caplog.text
    )
    again, _ = TrainingRows(drop_duplicates=True, imbalance=4.0).choose(rows.select(np.arange(82)[::-1]), [twin], 1)
    assert set(again.sample_id) == set(chosen.sample_id)
    other, _ = TrainingRows(drop_duplicates=True, imbalance=4.0).choose(rows, [twin], seed=2)
    assert set(other.sample_id) != set(chosen.sample_id)


def test_a_share_is_taken_of_the_long_tail_and_smaller_tails_are_nested() -> None:
    rows = tiny_table(280)
    tail, _ = TrainingRows(imbalance=8.0).choose(rows, [], seed=3)
    half, _ = TrainingRows(imbalance=8.0, training_fraction=0.5).choose(rows, [], seed=3)
    capped, _ = TrainingRows(imbalance=8.0, imbalance_largest=16).choose(rows, [], seed=3)
    assert list(tail.class_counts().values()) == [40, 28, 20, 14, 10, 7, 5]
    assert list(half.class_counts().values()) == [20, 14, 10, 7, 5, 4, 2]
    assert list(capped.class_counts().values()) == [16, 11, 8, 6, 4, 3, 2]
    assert set(half.sample_id) < set(tail.sample_id) and set(capped.sample_id) < set(tail.sample_id)


def test_labels_are_joined_by_id_and_by_name(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(21)
    names = np.random.default_rng(2).permutation(7)
    shuffled = LabelTable(
        sample_id=ROWS.sample_id[order],
        content_hash=ROWS.content_hash[order],
        label_space=tuple(BASIC7[i] for i in names),
        old_label=np.argsort(names)[ROWS.label][order],
        soft_label=soft()[order][:, names],
    )
    joined = join_label_table(ROWS.select(np.arange(3, 9)), write_label_table(tmp_path / "t.parquet", shuffled))
    np.testing.assert_allclose(joined.soft_label, soft()[3:9], atol=1e-6)
    np.testing.assert_array_equal(joined.label, soft()[3:9].argmax(1))
    np.testing.assert_array_equal(joined.sample_id, ROWS.sample_id[3:9])


def test_fit_learns_from_the_table_and_scores_on_the_data_s_own_labels(tmp_path: Path) -> None:
    path = write_label_table(tmp_path / "t.parquet", label_table())
    module = ExpressionDataModule(TinyReader(train=ROWS, val=tiny_table(14, "val")), label_table=str(path))
    module.setup("fit")
    assert module.train_table is not None and module.val_table is not None
    np.testing.assert_allclose(module.train_table.soft_label, soft(), atol=1e-6)
    np.testing.assert_array_equal(module.val_table.label, np.arange(14) % 7)


def test_a_label_table_chooses_no_rows(tmp_path: Path) -> None:
    path = write_label_table(tmp_path / "t.parquet", label_table())

    def rows(**settings: Any) -> list[str]:
        reader = TinyReader(train=ROWS, val=tiny_table(14, "val"))
        module = ExpressionDataModule(reader, **{"training_fraction": 0.5, "seed": 1, **settings})
        module.setup("fit")
        assert module.train_table is not None
        return module.train_table.sample_id.tolist()

    tail = {"imbalance": 3.0}
    assert rows(label_table=str(path), **tail) == rows(**tail)
    folds = {"folds": 3, "fold": 1, "training_fraction": 1.0}
    assert rows(label_table=str(path)) == rows() and rows(label_table=str(path), **folds) == rows(**folds)
    assert np.bincount([int(name.split("-")[1]) % 7 for name in rows(label_table=str(path))]).tolist() == [2] * 7


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_label_table(path, label_table(sample_id=np.array([f"x{i}" for i in range(21)])))
    with pytest.raises(ValueError, match=r"found no label of 'train-0' \(21 of 21 rows without\)"):
        join_label_table(ROWS, path)
    write_label_table(path, label_table(content_hash=np.roll(ROWS.content_hash, 1)))
    with pytest.raises(ValueError, match=r"'train-0' is another image than the one that was relabelled \(21 of 21"):
        join_label_table(ROWS, path)
    six = soft(k=6)
    write_label_table(path, LabelTable(ROWS.sample_id, ROWS.content_hash, BASIC7[:6], ROWS.label % 6, six))
    with pytest.raises(ValueError, match=r"found the label space neutral, .*, disgust, expected neutral, .*, anger"):
        join_label_table(ROWS, path)
