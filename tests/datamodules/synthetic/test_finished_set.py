"""The faces of a finished set that a run uses: no more than allowed, in the run's label space."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.synthetic.finished_set import most_synthetic, read_finished_set
from synfer.faces.expressions import LABEL_SPACES
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table


def test_a_multiple_of_the_real_rows() -> None:
    assert most_synthetic(2.5, 10) == 25
    assert most_synthetic(0.57, 100) == 57  # as floating-point numbers 56.99…
    with pytest.raises(ValueError, match=r"data\.synthetic_multiple=0\.05: found 0 synthetic samples allowed for 10"):
        most_synthetic(0.05, 10)


def test_fewer_faces_are_a_subset_of_more_with_all_classes() -> None:
    reader = TinyReader(train=tiny_table(70))
    few, more = (read_finished_set(reader, BASIC7, 1.0, most, seed=3) for most in (14, 28))
    assert set(few.sample_id) < set(more.sample_id) and few.is_synthetic
    assert set(few.class_counts().values()) == {2} and set(more.class_counts().values()) == {4}
    assert len(read_finished_set(reader, BASIC7, None, None, seed=3)) == 70


def test_labels_are_told_in_the_label_space_of_the_run() -> None:
    reader = TinyReader(train=tiny_table(6, label_space=("sad", "happy", "fear")))
    table = read_finished_set(reader, LABEL_SPACES["ferplus8"], None, None, seed=0)
    assert [table.label_space[code] for code in table.label] == ["sad", "happy", "fear"] * 2
    assert table.soft_label.shape == (6, 8)
    np.testing.assert_array_equal(table.soft_label.argmax(1), table.label)
    with pytest.raises(ValueError, match=r"data\.synthetic_reader: found expression 'fear', expected one of sad"):
        read_finished_set(reader, ("sad", "happy"), None, None, seed=0)


def test_a_set_with_too_few_faces_is_used_whole() -> None:
    with pytest.warns(UserWarning, match=r"data\.synthetic_multiple=2\.0: found a synthetic set of 6 faces"):
        assert len(read_finished_set(TinyReader(train=tiny_table(6)), BASIC7, 2.0, 8, seed=0)) == 6
