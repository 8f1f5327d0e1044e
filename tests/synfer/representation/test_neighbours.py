from __future__ import annotations

import math

import pytest
import torch

from synfer.representation.neighbours import neighbour_probabilities


def test_the_vote_is_that_of_its_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    features, bank = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, 7))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    found = neighbour_probabilities(features.float(), bank.float(), labels, 3, neighbours=4, temperature=0.1, chunk=2)
    for row in range(3):
        similar = sorted(
            (
                (float(features[row] @ b / features[row].norm() / b.norm()), int(c))
                for b, c in zip(bank, labels, strict=True)
            ),
            reverse=True,
        )[:4]
        votes = [sum(math.exp(s / 0.1) for s, c in similar if c == k) for k in range(3)]
        assert found[row].tolist() == pytest.approx([v / sum(votes) for v in votes], rel=1e-4, abs=1e-7)


def test_more_neighbours_than_there_are_and_a_cold_vote() -> None:
    bank = torch.eye(3)
    found = neighbour_probabilities(bank, bank, torch.tensor([2, 1, 0]), 3, neighbours=50, temperature=1e-3)
    assert found.isfinite().all() and found.argmax(1).tolist() == [2, 1, 0]
    assert neighbour_probabilities(bank[:0], bank, torch.arange(3), 3).shape == (0, 3)


def test_the_vote_is_the_same_under_autocast() -> None:
    features, bank = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0))
    plain = neighbour_probabilities(features, bank, torch.arange(40) % 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(neighbour_probabilities(features, bank, torch.arange(40) % 3, 3), plain)


def test_an_empty_bank() -> None:
    with pytest.raises(ValueError, match="found an empty bank"):
        neighbour_probabilities(torch.eye(2), torch.empty(0, 2), torch.empty(0).long(), 2)
