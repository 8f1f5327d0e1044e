"""Votes become labels by the rules of FER+."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.readers.fer2013.ferplus_votes import FERPLUS_SPACE, VOTE_COLUMNS, count_votes, drop_single_votes


def votes(**counts: int) -> list[int]:
    return [counts.get(name, 0) for name in VOTE_COLUMNS]


def test_single_votes_are_dropped() -> None:
    np.testing.assert_array_equal(drop_single_votes(np.array([[0, 1, 2, 7]])), [[0, 0, 2, 7]])


def test_labels_are_mapped_by_name() -> None:
    names = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
    outcome = count_votes(np.array([votes(**{name: 10}) for name in names]))
    expected = ["neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt"]
    assert [FERPLUS_SPACE[label] for label in outcome.label] == expected
    assert not outcome.tied.any() and not outcome.rejected.any()
    np.testing.assert_allclose(outcome.distribution.max(axis=1), 1)


def test_distribution_leaves_out_single_votes_and_unknown() -> None:
    outcome = count_votes(np.array([votes(happiness=5, surprise=2, fear=1, unknown=2)]))
    happy, surprise = FERPLUS_SPACE.index("happy"), FERPLUS_SPACE.index("surprise")
    np.testing.assert_allclose(outcome.distribution[0, [happy, surprise]], [5 / 7, 2 / 7], rtol=1e-6)
    assert outcome.distribution[0].sum() == pytest.approx(1)


def test_ties_and_rejections() -> None:
    outcome = count_votes(
        np.array(
            [
                votes(sadness=5, fear=5),
                votes(NF=10),
                votes(sadness=5, unknown=5),
                [1] * 10,
                votes(sadness=6, fear=4),
            ]
        )
    )
    assert outcome.tied.tolist() == [True, False, False, False, False]
    assert outcome.rejected.tolist() == [False, True, True, True, False]
    assert FERPLUS_SPACE[outcome.label[0]] == "sad"  # the first of the tied ones
    assert np.isfinite(outcome.distribution).all()


def test_wrong_number_of_columns() -> None:
    with pytest.raises(ValueError, match=r"found shape \(2, 8\), expected \(N, 10\)"):
        count_votes(np.zeros((2, 8)))
