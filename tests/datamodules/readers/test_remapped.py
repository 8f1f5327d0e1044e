from __future__ import annotations

import numpy as np
import pytest

from datamodules.readers import RemappedReader
from tests.fixtures.tiny_data import TinyReader, tiny_table


def test_splits_are_read_under_other_names() -> None:
    own = TinyReader(train=tiny_table(9), val=tiny_table(5, "val"))
    reader = RemappedReader(own, {"val": "train"})
    assert reader.label_space == own.label_space
    np.testing.assert_array_equal(reader.read("val").sample_id, own.read("train").sample_id)
    np.testing.assert_array_equal(reader.read("train").sample_id, own.read("train").sample_id)


def test_unknown_splits_are_refused() -> None:
    for splits in ({"val": "training"}, {"valid": "train"}):
        with pytest.raises(ValueError, match=r"splits: found '(training|valid)', expected train, val or test"):
            RemappedReader(TinyReader(train=tiny_table(9)), splits)


def test_rows_of_other_expressions_are_left_out_and_counted() -> None:
    own = TinyReader(train=tiny_table(21))  # row i has label i modulo 7
    table = RemappedReader(own, label_space=["sad", "happy"]).read("train")
    assert table.label_space == ("sad", "happy") and len(table) == 6
    assert [int(name.split("-")[1]) % 7 for name in table.sample_id] == [1, 2] * 3
    np.testing.assert_array_equal(table.label, [1, 0] * 3)
    np.testing.assert_array_equal(table.soft_label, np.eye(2)[[1, 0] * 3])
    assert table.report.excluded == {"expression outside the label space": 15}


def test_expressions_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"label_space: found 'contempt', expected some of neutral"):
        RemappedReader(TinyReader(train=tiny_table(9)), label_space="ferplus8")
    few = TinyReader(train=tiny_table(2))  # neutral and happy
    with pytest.raises(ValueError, match="split 'train': found no row of fear, anger"):
        RemappedReader(few, label_space=["fear", "anger"]).read("train")
