from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules.rows.reference_faces import ReferenceFaces, real_test_faces, some_training_faces
from tests.fixtures.tiny_data import tiny_table

NAMES = ("neutral", "happy", "sad")
SIDE = 16


def data(**tables: Any) -> Any:
    return SimpleNamespace(setup=lambda stage: None, **tables)


def test_examples_are_of_their_class_and_in_colour() -> None:
    faces = ReferenceFaces(tiny_table(9, "test", SIDE, label_space=NAMES), SIDE)
    assert faces.examples(1, 2).shape == (2, 3, SIDE, SIDE)
    assert faces.examples(7, 2).shape == (0, 3, SIDE, SIDE)
    assert torch.equal(faces.images(torch.tensor([4])), faces.images(torch.arange(9))[4:5])


def test_some_training_faces_are_drawn_by_the_seed() -> None:
    module = data(train_table=tiny_table(24, "train", SIDE, label_space=NAMES))
    ids = [some_training_faces(module, 5, seed, SIDE).table.sample_id.tolist() for seed in (1, 1, 2)]
    assert len(ids[0]) == 5 and ids[0] == ids[1] != ids[2]
    assert len(some_training_faces(module, None, 1, SIDE)) == len(some_training_faces(module, 99, 1, SIDE)) == 24


def test_without_a_test_split_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match=r"generator test: found no data module with a test split, expected one"):
        real_test_faces(None, NAMES, SIDE)
