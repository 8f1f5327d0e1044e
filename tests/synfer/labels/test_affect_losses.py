from __future__ import annotations

import pytest
import torch

from synfer.labels.affect_losses import AffectSettings, affect_loss
from synfer.metrics.affect_scores import AffectScores

NAN = torch.nan


def rows(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return (torch.rand(n, 2, generator=random) * 2 - 1).requires_grad_(), torch.rand(n, 2, generator=random) * 2 - 1


def real(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.bool)


def loss_of(rated: torch.Tensor, truth: torch.Tensor, kind: str, synthetic: torch.Tensor | None = None) -> torch.Tensor:
    settings = AffectSettings(enabled=True, loss=kind)  # type: ignore[arg-type]
    return affect_loss(rated, truth, real(len(truth)) if synthetic is None else synthetic, settings, 0.25)


def value_of(rated: torch.Tensor, truth: torch.Tensor, kind: str) -> float:
    return float(loss_of(rated, truth, kind).detach())


def test_losses_are_those_of_the_definitions() -> None:
    rated, truth = rows()
    metric = AffectScores()
    metric.update(rated, truth)
    scores = metric.compute()
    assert value_of(rated, truth, "ccc") == pytest.approx(1 - scores["ccc_mean"], abs=1e-5)
    errors = (scores["rmse/valence"] ** 2 + scores["rmse/arousal"] ** 2) / 2
    assert value_of(rated, truth, "mse") == pytest.approx(errors, abs=1e-6)
    assert value_of(rated, truth, "ccc_mse") == pytest.approx(1 - scores["ccc_mean"] + errors, abs=1e-5)


@pytest.mark.parametrize("kind", ["ccc", "mse", "ccc_mse"])
def test_unknown_numbers_teach_nothing_and_are_no_zeros(kind: str) -> None:
    rated, truth = rows()
    masked = truth.clone()
    masked[10:, 0] = NAN
    masked[30:, 1] = NAN
    loss = loss_of(rated, masked, kind)
    loss.backward()
    assert rated.grad is not None and not rated.grad[10:, 0].any() and not rated.grad[30:, 1].any()
    assert rated.grad[:10, 0].all() and rated.grad.isfinite().all()
    parts = [(rated[:10, :1], truth[:10, :1]), (rated[:30, 1:], truth[:30, 1:])]  # valence alone, arousal alone
    alone = [value_of(one.expand(-1, 2), other.expand(-1, 2), kind) for one, other in parts]
    assert float(loss.detach()) == pytest.approx(sum(alone) / 2, abs=1e-5)


@pytest.mark.parametrize("kind", ["ccc", "mse", "ccc_mse"])
def test_nothing_known_and_one_face_and_constants_give_no_nan(kind: str) -> None:
    for truth in (torch.full((4, 2), NAN), torch.tensor([[0.5, NAN]] + [[NAN, NAN]] * 3), torch.full((4, 2), 0.5)):
        rated = torch.full((4, 2), 0.5, requires_grad=True)
        loss = loss_of(rated, truth, kind)
        loss.backward()
        assert loss.isfinite() and rated.grad is not None and rated.grad.isfinite().all()
    assert value_of(torch.zeros(0, 2), torch.zeros(0, 2), kind) == 0


def test_a_synthetic_face_counts_by_its_weight() -> None:
    rated, truth = rows(8)
    made = torch.arange(8) >= 4
    repeated = torch.cat([torch.arange(4).repeat(4), torch.arange(4, 8)])  # a real face four times: 0.25 beside 1
    for kind in ("ccc", "mse"):
        expected = value_of(rated[repeated], truth[repeated], kind)
        assert float(loss_of(rated, truth, kind, made).detach()) == pytest.approx(expected, abs=1e-5)


def test_a_setting_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"model.affect.loss: found 'rmse', expected one of ccc, mse, ccc_mse"):
        AffectSettings(enabled=True, loss="rmse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model.affect.weight: found 0"):
        AffectSettings(enabled=True, weight=0)
    with pytest.raises(ValueError, match=r"model.affect.alone: found True, expected false without"):
        AffectSettings(alone=True)
