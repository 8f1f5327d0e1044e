from __future__ import annotations

import math

import pytest
import torch

from synfer.metrics.action_unit_scores import action_unit_scores


def test_f1_leaves_out_what_is_unknown() -> None:
    truth = torch.tensor([[0.9, 0.0], [0.8, math.nan], [0.2, 0.1], [math.nan, 0.0]])
    seen = torch.tensor([[0.7, 0.9], [0.3, 0.9], [0.6, 0.1], [0.9, 0.1]])
    scores = action_unit_scores(seen, truth, ["AU12", "AU6"])
    # AU12: one right, one missed, one invented; AU6 is present in no known face.
    assert scores == {"AU12": pytest.approx(0.5), "mean": pytest.approx(0.5)}


def test_threshold() -> None:
    truth, seen = torch.tensor([[0.4], [0.1]]), torch.tensor([[0.35], [0.1]])
    assert action_unit_scores(seen, truth, ["AU1"]) == {}
    assert action_unit_scores(seen, truth, ["AU1"], present_above=0.3)["AU1"] == 1
