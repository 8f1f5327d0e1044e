"""Validation rows out of training rows: stratified, by content, by person, whatever the order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datamodules.rows.held_out_share import ValidationShare
from datamodules.rows.sample_table import SampleTable
from tests.fixtures.tiny_data import tiny_table


def held_out_ids(table: SampleTable, **settings: object) -> set[str]:
    return set(table.sample_id[ValidationShare(**{"fraction": 0.2, **settings}).held_out(table)])  # type: ignore[arg-type]


def test_each_class_gives_its_share() -> None:
    table = tiny_table(70)  # ten rows of each class
    chosen = ValidationShare(0.2).held_out(table)
    assert np.bincount(table.label[chosen]).tolist() == [2] * 7
    assert np.bincount(table.label[ValidationShare(0.01).held_out(table)]).tolist() == [1] * 7


def test_it_is_a_function_of_pictures_and_seed_alone() -> None:
    table = tiny_table(70)
    order = np.random.default_rng(3).permutation(70)
    shuffled = table.select(order)
    assert held_out_ids(table) == held_out_ids(shuffled)
    assert held_out_ids(table) != held_out_ids(table, seed=1)
    renamed = replace(table, sample_id=np.array([f"other-{i}" for i in range(70)]))
    assert held_out_ids(renamed) == {name.replace("train", "other") for name in held_out_ids(table)}


def test_equal_pictures_are_on_one_side() -> None:
    table = tiny_table(70)
    content_hash = table.content_hash.copy()
    content_hash[1::2] = content_hash[::2]  # every picture twice, under two labels
    mask = ValidationShare(0.3).held_out(replace(table, content_hash=content_hash))
    assert (mask[::2] == mask[1::2]).all() and 0.2 < mask.mean() < 0.4


def test_a_person_is_on_one_side() -> None:
    table = tiny_table(140)
    person = [f"p{row // 14:02}" for row in range(140)]  # ten persons, each with every class twice
    table = replace(table, sample_id=np.array([f"{name}_{row}" for row, name in enumerate(person)]))
    mask = ValidationShare(0.2, groups=r"^(\w+?)_").held_out(table)
    assert len({person[row] for row in np.flatnonzero(mask)}) == 2 and mask.sum() == 28
    assert not {person[row] for row in np.flatnonzero(mask)} & {person[row] for row in np.flatnonzero(~mask)}


def test_a_picture_of_two_persons_joins_them() -> None:
    table = tiny_table(42)
    content_hash = table.content_hash.copy()
    content_hash[7] = content_hash[0]  # persons 0 and 1 share a picture
    names = np.array([f"{row // 7}_{row}" for row in range(42)])
    for seed in range(8):
        share = ValidationShare(0.3, seed, r"^(\d+)_")
        mask = share.held_out(replace(table, content_hash=content_hash, sample_id=names))
        assert mask[:14].all() or not mask[:14].any()


def test_the_only_row_of_a_class_stays_in_training() -> None:
    table = tiny_table(14).select(np.array([0, 1, 2, 3, 4, 5, 6, 7]))  # two rows of class 0, one of the others
    chosen = ValidationShare(0.5).held_out(table)
    assert chosen.sum() == 1 and table.label[chosen].tolist() == [0]


def test_too_few_rows_and_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"val_fraction=0.2: found 7 training rows, too few .* or a folder val"):
        ValidationShare(0.2).held_out(tiny_table(7))
    for fraction in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"data\.val_fraction=.*: expected a share in \(0, 1\)"):
            ValidationShare(fraction)
    with pytest.raises(ValueError, match=r"data\.val_groups: found '\(' .*expected a regular expression"):
        ValidationShare(0.2, groups="(")
    with pytest.raises(ValueError, match=r"data\.val_groups='x\+': found no match in 'train-0'"):
        ValidationShare(0.2, groups="x+").held_out(tiny_table(14))
