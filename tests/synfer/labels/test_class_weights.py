"""Weights of the classes in the loss."""

from __future__ import annotations

import numpy as np
import pytest

from synfer.labels.class_weights import CLASS_WEIGHTS, balanced_weights, check_class_weights, effective_number_weights

COUNTS = np.array([6, 2, 0])


def test_balanced_weights_have_the_mean_one_over_the_rows() -> None:
    np.testing.assert_allclose(balanced_weights(COUNTS), [8 / 18, 8 / 6, 0])


def test_weights_by_effective_number() -> None:
    e6, e2 = sum(0.9**i for i in range(6)), 1.9
    weights = effective_number_weights(COUNTS, 0.9)
    assert weights[1] / weights[0] == pytest.approx(e6 / e2)
    assert (weights * COUNTS).sum() == pytest.approx(COUNTS.sum()) and weights[2] == 0  # the mean over the rows is 1
    np.testing.assert_allclose(effective_number_weights(COUNTS, 0.0), [1, 1, 0])
    towards_inverse = effective_number_weights(COUNTS, 1 - 1e-9)
    assert towards_inverse[1] / towards_inverse[0] == pytest.approx(3)


@pytest.mark.parametrize("fine", [None, *CLASS_WEIGHTS, [1.0, 0.0, 2.0]])
def test_what_weights_may_be(fine: list[float] | str | None) -> None:
    check_class_weights(fine, ("neutral", "happy", "sad"))


@pytest.mark.parametrize("wrong", ["inverse", [1.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0], []])
def test_what_weights_may_not_be(wrong: list[float] | str) -> None:
    with pytest.raises(ValueError, match=r"model\.class_weights: found .*, expected ") as caught:
        check_class_weights(wrong, ("neutral", "happy", "sad"))
    assert "\n" not in str(caught.value)
