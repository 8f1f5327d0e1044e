from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from synfer.representation.few_shot import (
    Shots,
    draw_shots,
    linear_logits,
    mean_with_interval,
    prototype_logits,
    tip_adapter_logits,
)

NAMES = ("happy", "sad", "fear")
LABEL = np.array([0, 1, 2, -1] * 6)
IDS = [f"faces/{row:03}.png" for row in range(24)]


def test_a_draw_is_the_same_on_any_machine() -> None:
    """Numbers written down once: another machine, order or version of numpy must give them too."""
    assert draw_shots(LABEL, IDS, NAMES, 2, seed=0, draw=0).tolist() == EXPECTED
    shuffle = np.random.default_rng(0).permutation(24)
    found = draw_shots(LABEL[shuffle], [IDS[row] for row in shuffle], NAMES, 2, seed=0, draw=0)
    assert shuffle[found].tolist() == EXPECTED


EXPECTED = [20, 8, 5, 9, 18, 14]


def test_draws_differ_hold_each_class_and_grow() -> None:
    few, more = (draw_shots(LABEL, IDS, NAMES, shots, 0, 0) for shots in (2, 5))
    assert np.bincount(LABEL[more]).tolist() == [5, 5, 5] and set(few) < set(more)
    others = [tuple(draw_shots(LABEL, IDS, NAMES, 2, seed, draw)) for seed in (0, 1) for draw in range(5)]
    assert len(set(others)) == 10


def test_too_few_faces() -> None:
    with pytest.raises(ValueError, match=r"found 6 training faces of happy, expected at least 7 \(model.shots\)"):
        draw_shots(LABEL, IDS, NAMES, 7, 0, 0)


def rows(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 20, generator=torch.Generator().manual_seed(seed)).double(), dim=1)


def test_prototypes() -> None:
    shots, label, features = rows(4, 0), torch.tensor([0, 0, 1, 1]), rows(3, 1)
    found = prototype_logits(shots, label, features, 2)
    for row in range(3):
        for k in range(2):
            mean = (shots[2 * k] + shots[2 * k + 1]) / 2
            assert float(found[row, k]) == pytest.approx(float(features[row] @ mean / mean.norm()), rel=1e-9)


def test_tip_adapter() -> None:
    shots, label, features, prior = rows(4, 0), torch.tensor([0, 0, 1, 1]), rows(3, 1), rows(3, 2)[:, :2]
    found = tip_adapter_logits(shots, label, features, prior, alpha=2.0, beta=3.0)
    for row in range(3):
        votes = [np.exp(-3.0 * (1 - float(features[row] @ shots[n]))) for n in range(4)]
        for k in range(2):
            wanted = 2.0 * (votes[2 * k] + votes[2 * k + 1]) / 2 + float(prior[row, k])
            assert float(found[row, k]) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("count", [6, 60])
def test_the_linear_head_stands_where_its_gradient_is_zero(count: int) -> None:
    """Fewer shots than features, and more; the gradient of the written-out objective in all features."""
    shots, label = rows(count, 0), torch.arange(count) % 3
    decay, probe = 1e-2, torch.eye(20, dtype=torch.float64)
    # Logits of the unit vectors and of the centre give weights and bias back.
    centre = shots.mean(0)
    scale = (shots - centre).square().sum(1).mean().sqrt()
    at_centre = linear_logits(shots, label, centre[None], 3, decay)
    weight = (linear_logits(shots, label, centre + scale * probe, 3, decay) - at_centre).T.requires_grad_()
    bias = at_centre[0].clone().requires_grad_()
    logits = ((shots - centre) / scale) @ weight.T + bias
    (F.cross_entropy(logits, label) + decay / 2 * weight.square().sum()).backward()
    assert weight.grad is not None and bias.grad is not None
    assert weight.grad.abs().max() < 1e-6 and bias.grad.abs().max() < 1e-6


def test_all_heads_name_what_is_plain_to_see_also_under_inference_mode() -> None:
    with torch.inference_mode():
        centres = rows(3, 5)
        label = torch.arange(12) % 3
        shots = F.normalize(centres[label] + 0.1 * rows(12, 6), dim=1)
        found = Shots(shots, label, F.normalize(centres + 0.1 * rows(3, 7), dim=1), None, 3)
        for head in ("linear", "prototype", "tip_adapter"):
            assert found.logits(head).argmax(1).tolist() == [0, 1, 2]  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="found the head 'tree', expected one of linear"):
            found.logits("tree")  # type: ignore[arg-type]


def test_interval() -> None:
    mean, half = mean_with_interval([0.5, 0.6, 0.7])
    assert mean == pytest.approx(0.6) and half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)
    assert mean_with_interval([0.5]) == (0.5, None)
