from __future__ import annotations

import pytest
import torch

from synfer.labels.vote import vote

HAPPY, SAD = torch.tensor([0]), torch.tensor([1])


def votes(*rows: list[float]) -> torch.Tensor:
    """Returns (V, 1, K): each row is one voter's probabilities of the only face."""
    return torch.tensor(rows)[:, None]


def test_majority_for_the_intended_expression_keeps_it_one_hot() -> None:
    outcome = vote(votes([0.5, 0.3, 0.2], [0.6, 0.2, 0.2], [0.0, 1.0, 0.0]), HAPPY)
    assert outcome.agreed.tolist() == [True] and outcome.soft_label.tolist() == [[1.0, 0.0, 0.0]]


def test_otherwise_the_label_is_the_mean_of_the_votes() -> None:
    outcome = vote(votes([0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.0, 0.8, 0.2]), HAPPY)
    assert outcome.agreed.tolist() == [False]
    torch.testing.assert_close(outcome.soft_label, torch.tensor([[0.2, 0.6, 0.2]]))


def test_a_tie_is_no_majority() -> None:
    outcome = vote(votes([0.9, 0.1], [0.2, 0.8]), HAPPY)
    assert outcome.agreed.tolist() == [False]
    torch.testing.assert_close(outcome.soft_label, torch.tensor([[0.55, 0.45]]))


def test_a_voter_who_cannot_tell_classes_apart_is_none_for_the_intended_one() -> None:
    for intended in (HAPPY, SAD):  # the first of equal classes is treated like the second
        assert vote(votes([0.4, 0.4, 0.2]), intended).agreed.tolist() == [False]


def test_a_single_voter_decides() -> None:
    assert vote(votes([0.4, 0.35, 0.25]), HAPPY).agreed.tolist() == [True]
    assert vote(votes([0.4, 0.35, 0.25]), SAD).soft_label.argmax().item() == 0


def test_hard_labels_on_request() -> None:
    outcome = vote(votes([0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.0, 0.8, 0.2]), HAPPY, soft=False)
    assert outcome.soft_label.tolist() == [[0.0, 1.0, 0.0]]
    equal = vote(votes([0.0, 0.5, 0.5]), HAPPY, soft=False)
    assert equal.soft_label.tolist() == [[0.0, 1.0, 0.0]]  # the first of equal ones
    assert vote(votes([0.0, 0.5, 0.5]), torch.tensor([2]), soft=False).soft_label.tolist() == [[0.0, 0.0, 1.0]]


def test_weak_faces_are_discarded_by_the_mean_of_their_final_class() -> None:
    probabilities = torch.stack([votes([0.5, 0.3, 0.2], [0.6, 0.2, 0.2], [0.0, 1.0, 0.0])[:, 0]] * 2, 1)
    intended = torch.tensor([0, 1])  # mean: 0.367, 0.5, 0.133; agreed on 0, not on 1 (its mean is a soft label)
    outcome = vote(probabilities, intended, discard_below=0.4)
    assert outcome.agreed.tolist() == [True, False]
    assert outcome.kept.tolist() == [False, True]
    assert vote(probabilities, intended, discard_below=0.0).kept.all()
    assert not vote(probabilities, intended, discard_below=0.51).kept.any()


def test_each_face_is_voted_on_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 20, 4, generator=generator).softmax(2)
    intended = torch.randint(4, (20,), generator=generator)
    outcome = vote(probabilities, intended, discard_below=0.27)
    torch.testing.assert_close(outcome.soft_label.sum(1), torch.ones(20))
    for i in range(20):
        alone = vote(probabilities[:, i : i + 1], intended[i : i + 1], discard_below=0.27)
        assert torch.equal(alone.soft_label[0], outcome.soft_label[i])
        assert alone.agreed[0] == outcome.agreed[i] and alone.kept[0] == outcome.kept[i]
    assert 0 < int(outcome.agreed.sum()) < 20 and 0 < int(outcome.kept.sum()) < 20


def test_no_voter_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"label vote: found votes of shape \(0, 1, 3\), expected \(V ≥ 1, n, K\)"):
        vote(torch.empty(0, 1, 3), HAPPY)
