from __future__ import annotations

import pytest
import torch

from synfer.synthesis.diffusion.representation_alignment import AlignmentSettings, RepresentationAlignment


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_one_minus_the_mean_cosine_of_places() -> None:
    torch.manual_seed(0)
    alignment = RepresentationAlignment(4, 6)
    inner, features = drawn(2, 4, 3, 3), drawn(2, 6, 3, 3, seed=1)
    with torch.no_grad():
        projected = alignment.projection(inner)
        cosines = (projected * features).sum(1) / (projected.norm(dim=1) * features.norm(dim=1))
        assert float(alignment(inner, features)) == pytest.approx(1 - float(cosines.mean()), abs=1e-5)
        assert float(alignment(inner, projected * 3)) == pytest.approx(0, abs=1e-5)
        assert float(alignment(inner, -projected)) == pytest.approx(2, abs=1e-5)


def test_places_are_brought_together_and_not_mixed_up() -> None:
    alignment = RepresentationAlignment(4, 4)
    alignment.projection = torch.nn.Sequential()  # which changes nothing
    inner = drawn(2, 4, 3, 3)
    features = inner.repeat_interleave(4, 2).repeat_interleave(4, 3)
    same = float(alignment(inner, features))
    assert same < 0.1 < float(alignment(inner, features.flip(-1)))


def test_it_learns_and_teaches_what_lies_below() -> None:
    torch.manual_seed(0)
    alignment = RepresentationAlignment(4, 6)
    inner = drawn(8, 4, 3, 3).requires_grad_()
    features = drawn(8, 6, 3, 3, seed=1)
    optimiser = torch.optim.Adam([inner, *alignment.parameters()], 0.01)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = alignment(inner, features)
        loss.backward()
        assert inner.grad is not None and float(inner.grad.abs().max()) > 0
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.alignment.weight: found 0.0, expected a number above 0"):
        AlignmentSettings(weight=0.0)
