from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamodules.expression_data_module import ExpressionDataModule
from datamodules.readers.joined import JoinedReader
from datamodules.readers.remapped import RemappedReader
from datamodules.rows.folds import assign_folds
from datamodules.rows.sample_table import ReadReport
from synfer.labels.annotator_agreement import annotator_agreement
from tests.fixtures.tiny_data import BASIC7, TinyReader, tiny_table


def test_rows_of_all_readers_one_after_the_other() -> None:
    first, second = tiny_table(14), replace(tiny_table(21, seed=1), sample_id=np.array([f"b{i}" for i in range(21)]))
    joined = JoinedReader([TinyReader(train=first), TinyReader(train=second)])
    table = joined.read("train")
    assert joined.label_space == BASIC7 and len(table) == 35
    assert table.sample_id.tolist() == [*first.sample_id, *second.sample_id]
    assert np.array_equal(table.label, np.concatenate([first.label, second.label]))
    rows = np.array([30, 0, 13, 14, 30])
    expected = np.concatenate([first.images.array, second.images.array])[rows]  # type: ignore[attr-defined]
    assert np.array_equal(table.images.batch(rows)[:, 0].numpy(), expected)
    assert np.array_equal(table.select(rows).images.batch(np.array([1, 0]))[:, 0].numpy(), expected[[1, 0]])
    assert joined.source() == {"reader": "TinyReader+TinyReader", "labels": None}


def test_names_that_occur_twice_get_the_number_of_their_reader() -> None:
    table = JoinedReader([TinyReader(train=tiny_table(7)), TinyReader(train=tiny_table(7, seed=1))]).read("train")
    assert len(set(table.sample_id)) == 14 and table.sample_id[[0, 7]].tolist() == ["0/train-0", "1/train-0"]


def test_grey_beside_colour_and_what_only_one_of_them_knows() -> None:
    grey = replace(tiny_table(7), caption=np.array(["a face"] * 7), au=np.zeros((7, 41), dtype=np.float32))
    table = JoinedReader([TinyReader(train=grey), TinyReader(train=tiny_table(7, grey=False, seed=1))]).read("train")
    images = table.images.batch(np.array([0, 7]))
    assert images.shape == (2, 3, 8, 8) and (images[0] == images[0, :1]).all() and (images[1] != images[1, :1]).any()
    assert table.caption is None and table.au is None
    both = JoinedReader([TinyReader(train=grey), TinyReader(train=grey)]).read("train")
    assert both.caption is not None and both.au is not None and both.au.shape == (14, 41)


def test_ratings_stay_wherever_they_are_known() -> None:
    rated = replace(tiny_table(7), affect=np.full((7, 2), 0.5, dtype=np.float32))
    table = JoinedReader([TinyReader(train=tiny_table(7, seed=1)), TinyReader(train=rated)]).read("train")
    assert table.affect is not None and np.isnan(table.affect[:7]).all() and (table.affect[7:] == 0.5).all()
    few = RemappedReader(TinyReader(train=table), label_space=["sad", "happy"]).read("train")
    assert few.affect is not None and few.affect.shape == (4, 2) and np.isnan(few.affect[:, 0]).sum() == 2
    first = assign_folds(table, 2) == 0
    np.testing.assert_array_equal(table.select(first).affect, table.affect[first])


def test_agreement_of_annotators_is_that_of_all_faces_with_votes() -> None:
    votes = [np.random.default_rng(seed).multinomial(10, [0.6, 0.3, 0.1], size=7 * (seed + 1)) for seed in range(2)]
    parts = [
        replace(tiny_table(len(some), seed=seed), report=ReadReport(len(some), agreement=annotator_agreement(some)))
        for seed, some in enumerate(votes)
    ]
    silent = TinyReader(train=tiny_table(7, seed=2))
    both = JoinedReader([TinyReader(train=parts[0]), silent, TinyReader(train=parts[1])]).read("train").report.agreement
    whole = annotator_agreement(np.concatenate(votes))
    assert both == pytest.approx({name: value for name, value in whole.items() if name != "fleiss_kappa"})
    assert (
        JoinedReader([silent, TinyReader(train=parts[0])]).read("train").report.agreement == parts[0].report.agreement
    )
    assert JoinedReader([silent, silent]).read("train").report.agreement == {}


def test_two_sets_are_the_synthetic_faces_of_a_run() -> None:
    real = {split: tiny_table(28, split) for split in ("train", "val", "test")}
    made = [replace(tiny_table(14, seed=seed), is_synthetic=True) for seed in (3, 4)]
    joined = JoinedReader([TinyReader(train=table) for table in made])
    data = ExpressionDataModule(TinyReader(**real), synthetic_reader=joined, synthetic_ratio=0.5, seed=1)
    data.setup("fit")
    assert data.synthetic_table is not None and len(data.synthetic_table) == 28 and data.synthetic_table.is_synthetic


def test_wrong_input() -> None:
    one = TinyReader(train=tiny_table(7))
    with pytest.raises(ValueError, match=r"JoinedReader.readers: found 1, expected at least two"):
        JoinedReader([one])
    with pytest.raises(ValueError, match=r"found the label spaces .* and .*, expected one"):
        JoinedReader([one, TinyReader(train=tiny_table(6, label_space=("happy", "sad")))])
    made = TinyReader(train=replace(tiny_table(7, seed=3), is_synthetic=True))
    with pytest.raises(ValueError, match=r"^JoinedReader.readers: found real and synthetic faces, expected one kind"):
        JoinedReader([one, made]).read("train")
    with pytest.raises(ValueError, match=r"found images of 8x8 and 16x16 pixels, expected one size"):
        JoinedReader([one, TinyReader(train=tiny_table(7, side=16))]).read("train")
