"""The order in which classes are drawn: their shares hold at every step."""

from __future__ import annotations

import numpy as np

from datamodules.loading.class_order import even_class_order


def test_200_orders_are_off_by_less_than_one_row() -> None:
    for case in range(200):
        random = np.random.default_rng([case, 0x0C])
        classes, length = int(random.integers(1, 12)), int(random.integers(1, 700))
        shares = random.dirichlet(np.full(classes, random.choice([0.2, 0.7, 5]))) + 1e-3
        shares /= shares.sum()
        order = even_class_order(shares, length, case)
        drawn = np.stack([(order == c).cumsum() for c in range(classes)])
        assert (abs(drawn - shares[:, None] * np.arange(1, length + 1)) < 1 + 1e-6).all(), case
        shorter = int(random.integers(0, length))
        assert np.array_equal(even_class_order(shares, shorter, case), order[:shorter])


def test_even_classes_take_turns_in_another_order_each_time() -> None:
    rounds = even_class_order(np.full(7, 1 / 7), 700, seed=1).reshape(100, 7)
    assert all(sorted(turn) == list(range(7)) for turn in rounds.tolist())
    assert len({tuple(turn) for turn in rounds.tolist()}) > 50
    assert not np.array_equal(even_class_order(np.full(7, 1 / 7), 700, seed=2).reshape(100, 7), rounds)
