from __future__ import annotations

import torch

from synfer.labels.tie_break import argmax_with_tie_break


def test_the_preferred_class_wins_a_tie_and_nothing_else() -> None:
    probabilities = torch.tensor([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])
    preferred = torch.tensor([1, 0, 2, 0])
    assert argmax_with_tie_break(probabilities, preferred).tolist() == [
        1,
        0,
        0,
        2,
    ]  # preferred, preferred, the first, the top
    assert argmax_with_tie_break(torch.tensor([[0.4, 0.4 + 1e-7]]), torch.tensor([0])).tolist() == [
        0
    ]  # equal but for rounding
    assert argmax_with_tie_break(torch.empty(0, 3), torch.empty(0, dtype=torch.long)).tolist() == []
