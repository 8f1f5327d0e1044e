from __future__ import annotations

import numpy as np
import pytest

from synfer.labels.annotator_agreement import annotator_agreement

# The example of Fleiss 1971 as textbooks give it: ten faces, fourteen raters, five answers; kappa 0.21.
EXAMPLE = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def test_the_example_of_the_textbooks() -> None:
    found = annotator_agreement(EXAMPLE)
    assert found["pairwise"] == pytest.approx(0.378, abs=5e-4) and found["fleiss_kappa"] == pytest.approx(
        0.21, abs=5e-3
    )
    assert found["faces"] == 10 and found["annotators"] == 14
    assert found["majority"] == pytest.approx(EXAMPLE.max(1).mean() / 14)


def test_pairs_are_counted_one_by_one() -> None:
    votes = np.array([[2, 1, 0], [0, 4, 1], [3, 0, 0]])
    shares = []
    for row in votes:
        answers = np.repeat(np.arange(3), row)
        pairs = [a == b for i, a in enumerate(answers) for j, b in enumerate(answers) if i != j]
        shares.append(np.mean(pairs))
    assert annotator_agreement(votes)["pairwise"] == pytest.approx(np.mean(shares))


def test_faces_of_one_vote_and_answers_of_one_kind() -> None:
    assert annotator_agreement(np.array([[1, 0], [0, 1]])) == {}
    assert annotator_agreement(np.zeros((0, 10), dtype=np.int64)) == {}
    same = annotator_agreement(np.array([[3, 0], [4, 0], [1, 0]]))
    assert same == {
        "faces": 2,
        "annotators": 3.5,
        "majority": 1,
        "pairwise": 1,
    }  # and no kappa, of nothing beyond chance
