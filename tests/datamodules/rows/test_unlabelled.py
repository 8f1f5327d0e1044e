from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.loading.mixed_dataset import MixedDataset
from datamodules.readers import RemappedReader
from datamodules.rows.provenance import split_manifest
from datamodules.rows.sample_table import SampleTable
from datamodules.rows.source_faces import TrainingSources
from datamodules.rows.unlabelled import check_labels_needed, expression_names, unlabelled_soft_labels
from datamodules.training_rows import TrainingRows
from synfer.faces.expression_words import names_expression
from synfer.synthesis.conditions import fill_action_units
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table


def half_unlabelled(split: str = "train") -> SampleTable:
    """Every second of 14 rows has no expression."""
    rows = tiny_table(14, split)
    label, soft = rows.label.copy(), rows.soft_label.copy()
    label[1::2], soft[1::2] = -1, unlabelled_soft_labels(7, 7)
    return replace(rows, label=label, soft_label=soft)


def test_an_unlabelled_row_is_never_of_the_last_class() -> None:
    rows = half_unlabelled()
    assert rows.count_per_class().tolist() == [1] * 7
    assert expression_names(rows.label[:3], BASIC7) == ["neutral", None, "sad"]
    batch = MixedDataset(rows).__getitems__(range(14))
    assert batch["label"].tolist() == rows.label.tolist()
    assert [names_expression(caption) for caption in batch["caption"]] == [True, False] * 7
    sources = TrainingSources(rows, [], "test")
    assert sources.rows_of("anger").tolist() == np.flatnonzero(rows.label == 6).tolist()
    assert not len(sources.rows_of("contempt"))
    other = replace(rows, label=np.where(rows.label < 0, 6, rows.label))
    assert split_manifest(rows) != split_manifest(other)
    assert sources.fingerprint() != TrainingSources(other, [], "test").fingerprint()
    with pytest.raises(ValueError, match=r"labels -2…6, expected 0…6, or -1"):
        replace(rows, label=rows.label - (rows.label < 0))


def test_fewer_expressions_keep_unlabelled_rows() -> None:
    table = RemappedReader(TinyReader(train=half_unlabelled()), label_space=["anger", "sad"]).read("train")
    assert (table.label == -1).sum() == 7 and table.class_counts() == {"anger": 1, "sad": 1}
    np.testing.assert_allclose(table.soft_label[table.label == -1], 0.5)


def test_unknown_expressions_have_unknown_action_units() -> None:
    units = np.full((3, 41), np.nan, dtype=np.float32)
    filled = fill_action_units(units, ["happy", None, "neutral"], ["a", "b", "c"], 1)
    assert (filled[0] > 0).any() and np.isnan(filled[1]).all() and (filled[2] == 0).all()
    alone = fill_action_units(units[:1], ["happy"], ["a"], 1)
    np.testing.assert_array_equal(filled[0], alone[0])


def test_who_needs_labels_refuses_rows_without() -> None:
    class Needs:
        pass

    class DoesNot:
        uses_unlabelled_rows = True

    def trainer(module: object, command: str) -> SimpleNamespace:
        return SimpleNamespace(lightning_module=module, state=SimpleNamespace(fn=command))

    rows = half_unlabelled()
    said = r"data\.reader: found 7 of 14 train rows without an expression, the first of them 'train-1', expected an"
    with pytest.raises(ValueError, match=said):
        check_labels_needed(rows, "train", trainer(Needs(), "fit"))
    check_labels_needed(rows, "train", trainer(DoesNot(), "fit"))
    check_labels_needed(rows, "test", trainer(DoesNot(), "predict"))
    check_labels_needed(tiny_table(7), "train", trainer(Needs(), "fit"))
    check_labels_needed(rows, "train", None)
    rates = SimpleNamespace(uses_unlabelled_rows=True, scores_unlabelled_rows=True)
    check_labels_needed(half_unlabelled("test"), "test", trainer(rates, "test"))
    with pytest.raises(ValueError, match="found 7 of 14 test rows without an expression"):
        check_labels_needed(half_unlabelled("test"), "test", trainer(DoesNot(), "test"))


def test_settings_that_need_classes_refuse_them() -> None:
    rows = half_unlabelled()
    with pytest.raises(ValueError, match=r"data\.imbalance=2: found 7 rows without an expression"):
        TrainingRows(imbalance=2).choose(rows, [], 0)
    data = ExpressionDataModule(TinyReader(train=rows, val=tiny_table(7, "val")), class_balance=1.0)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"data\.class_balance: found training rows without an expression"):
        data.training_sampler()
