from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamodules.readers import DrawnReader
from datamodules.rows.folds import assign_folds
from datamodules.rows.groups import refuse_shared_groups, units_of
from datamodules.rows.sample_table import SampleTable


@pytest.fixture(scope="module")
def plain() -> SampleTable:
    return DrawnReader({"train": 60, "val": 7, "test": 7}, image_size=32).read("train")


def test_without_groups_a_unit_is_a_picture(plain: SampleTable) -> None:
    assert len(np.unique(units_of(plain))) == len(np.unique(plain.content_hash))


def test_pictures_and_groups_are_joined_through_each_other(plain: SampleTable) -> None:
    hashes = plain.content_hash.copy()
    hashes[2] = hashes[1]  # one picture of two people: a, b and their pictures are one unit
    table = replace(plain, content_hash=hashes, group=np.array(["a", "a", "b", "b", *map(str, range(56))]))
    units = units_of(table)
    assert len(set(units[:4])) == 1 and len(np.unique(units)) == 57


def test_units_do_not_depend_on_the_order_of_the_rows(plain: SampleTable) -> None:
    table = replace(plain, group=np.array([str(row // 4) for row in range(60)]))
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(units_of(table.select(order)), units_of(table)[order])


def test_folds_keep_people_together_and_need_enough_of_them(plain: SampleTable) -> None:
    table = replace(plain, group=np.array([str(row % 12) for row in range(60)]))
    fold = assign_folds(table, 4)
    assert all(len(np.unique(fold[table.group == person])) == 1 for person in np.unique(table.group))  # type: ignore[arg-type]
    assert np.bincount(fold).tolist() == [15, 15, 15, 15]
    with pytest.raises(ValueError, match=r"data.folds=13: found 12 people or photographs, expected at least 13"):
        assign_folds(table, 13)


def test_a_person_on_both_sides_is_refused(plain: SampleTable) -> None:
    people = np.array([str(row % 12) for row in range(60)])
    train = replace(plain, group=people).select(np.arange(40))
    other = replace(plain, group=np.char.add("x", people), split="val").select(np.arange(40, 60))
    refuse_shared_groups(train, [other, replace(other, group=None)])
    shared = replace(other, group=people[40:])
    with pytest.raises(ValueError, match=r"split 'val': found 20 rows of 12 people .* \(0, 1, 10, …\), expected"):
        refuse_shared_groups(train, [other, shared])
