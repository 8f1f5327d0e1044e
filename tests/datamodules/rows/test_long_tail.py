"""How many rows of each class a long tail has."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.rows.long_tail import long_tailed_counts


def test_the_profile_of_the_paper() -> None:
    # Enough of each class: 5000 · 100^(−i / 9), as for CIFAR-10.
    counts = long_tailed_counts(np.full(10, 5000), 100)
    assert counts.tolist() == [5000, 2997, 1797, 1077, 646, 387, 232, 139, 83, 50]


def test_a_class_with_too_few_lowers_the_whole_profile() -> None:
    # FER+ in seven classes: of disgust there are 161, so the largest class has 161 · 50.
    available = np.array([9320, 7373, 3362, 3247, 633, 161, 2366])
    counts = long_tailed_counts(available, 50)
    assert counts.tolist() == [8050, 4194, 2185, 1138, 309, 161, 593]
    assert long_tailed_counts(available, 50, largest=4000).tolist() == [4000, 2084, 1086, 566, 154, 80, 295]
    assert long_tailed_counts(available, 50, largest=9000).tolist() == counts.tolist()


def test_classes_without_rows_are_left_out() -> None:
    assert long_tailed_counts(np.array([0, 90, 0, 100, 40]), 4).tolist() == [0, 50, 0, 100, 25]
    assert long_tailed_counts(np.array([0, 7]), 50).tolist() == [0, 7]
    assert long_tailed_counts(np.array([30, 20]), 1).tolist() == [20, 20]


@pytest.mark.parametrize("seed", range(200))
def test_no_class_has_more_than_there_are_and_the_ratio_holds(seed: int) -> None:
    random = np.random.default_rng([seed, 0x10])
    available = random.integers(0, 3000, random.integers(1, 9))
    available[0] += 1
    ratio = float(random.uniform(1, 60))
    counts = long_tailed_counts(available, ratio)
    has_rows = available > 0
    assert (counts <= available).all() and ((counts > 0) == has_rows).all()
    assert counts.max() == counts[np.argmax(available)]
    largest, smallest = counts.max(), counts[has_rows].min()
    if has_rows.sum() > 1 and smallest > 1:
        assert abs(smallest - largest / ratio) <= 0.5 + 1e-9
    share = (largest + 1) * ratio ** -(np.arange(has_rows.sum()) / max(1, has_rows.sum() - 1))
    assert (np.sort(available[has_rows])[::-1] < share + 1e-6).any()  # one row more, and some class has too few
