from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.expression_data_module import ExpressionDataModule
from synfer.labels.label_table import LabelTable, join_label_table, read_label_table, write_label_table
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table

ROWS = tiny_table(21)


def soft(n: int = 21, k: int = 7) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(k), n).astype(np.float32)


def label_table(**changes: object) -> LabelTable:
    table = LabelTable(
        ROWS.sample_id, ROWS.content_hash, BASIC7, ROWS.label, soft(), {"a": soft(), "runs/b.ckpt": soft()[::-1]}
    )
    return replace(table, **changes)  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, table = tmp_path / "sub" / "labels.parquet", label_table()
    read = read_label_table(write_label_table(path, table))
    assert read.label_space == BASIC7 and list(read.votes) == ["a", "runs/b.ckpt"]
    for name in ("sample_id", "content_hash", "old_label", "soft_label", "label"):
        np.testing.assert_array_equal(getattr(read, name), getattr(table, name))
    np.testing.assert_array_equal(read.votes["runs/b.ckpt"], table.votes["runs/b.ckpt"])
    raw = pq.read_table(path).to_pylist()[3]
    assert raw["old_label"] == "surprise" and raw["label"] == BASIC7[int(soft()[3].argmax())]
    assert raw["soft_label"]["happy"] == pytest.approx(float(soft()[3, 1]))
    assert raw["confidence"] == pytest.approx(float(soft()[3].max()))
    assert not list(path.parent.glob(".*"))


def test_equal_probabilities_keep_the_old_label() -> None:
    even = np.full((21, 7), 1 / 7, dtype=np.float32)
    np.testing.assert_array_equal(label_table(soft_label=even).label, ROWS.label)


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


def test_files_that_are_no_label_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_label_table(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="found a file that is not Parquet"):
        read_label_table(path)
    good = pq.read_table(write_label_table(path, label_table()))
    pq.write_table(good.drop_columns(["votes"]), path)
    with pytest.raises(ValueError, match="found no column 'votes'"):
        read_label_table(path)
    pq.write_table(good.slice(0, 0), path)
    with pytest.raises(ValueError, match="found 0 rows"):
        read_label_table(path)
    pq.write_table(pa.concat_tables([good, good]), path)
    with pytest.raises(ValueError, match="found 21 sample ids twice"):
        read_label_table(path)
    write_label_table(path, label_table(soft_label=soft() * 2))
    with pytest.raises(ValueError, match=r"soft label of 'train-0' .* expected probabilities that sum to 1 \(21"):
        read_label_table(path)
