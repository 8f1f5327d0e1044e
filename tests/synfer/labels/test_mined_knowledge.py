"""Weights of rare classes for attention and for smoothed labels."""

from __future__ import annotations

import torch

from synfer.labels.mined_knowledge import MinedKnowledge


def told(*counts: int) -> MinedKnowledge:
    knowledge = MinedKnowledge(len(counts))
    knowledge.adapt(torch.tensor(counts))
    return knowledge


def test_a_label_gives_its_share_to_the_other_classes_by_inverse_frequency() -> None:
    smoothed = told(60, 20, 10).smoothed(torch.eye(3), 0.3)
    expected = torch.tensor([[0.7, 0.1, 0.2], [0.3 / 7, 0.7, 0.3 * 6 / 7], [0.075, 0.225, 0.7]])
    torch.testing.assert_close(smoothed, expected)
    soft = torch.tensor([[0.5, 0.5, 0.0]])
    torch.testing.assert_close(told(60, 20, 10).smoothed(soft, 0.3), (expected[0] + expected[1]).unsqueeze(0) / 2)
    assert torch.equal(told(60, 20, 10).smoothed(soft, 0.0), soft)
    torch.testing.assert_close(told(60, 0, 10).smoothed(torch.eye(3), 0.3)[0], torch.tensor([0.7, 0.0, 0.3]))


def test_maps_that_turn_with_the_face_are_consistent() -> None:
    maps = torch.randn(2, 3, 4, 5)
    assert told(6, 2, 1).inconsistency(maps, maps.flip(-1)).tolist() == [0, 0]


def test_maps_of_rare_classes_weigh_more() -> None:
    knowledge, maps = told(6, 2, 1), torch.zeros(3, 3, 4, 5)
    maps[torch.arange(3), torch.arange(3), 1, 2] = (
        2.0  # in face k the map of class k alone differs, at one of 20 places
    )
    found = knowledge.inconsistency(maps, torch.zeros_like(maps))
    torch.testing.assert_close(found, torch.tensor([9 / 18, 9 / 6, 9 / 3]) * 4 / 20)


def test_nothing_of_it_enters_a_checkpoint() -> None:
    assert not told(6, 2).state_dict() and not list(told(6, 2).parameters())
