"""Losses for rare classes: those of the papers under a one-hot label, their expectation under a soft one."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from synfer.labels.long_tail_losses import LOSSES, ClassLosses, LossName, LossSettings, check_together
from synfer.labels.soft_label_loss import expected_losses, soft_label_losses

COUNTS = torch.tensor([8050, 1138, 161, 309])
PRIOR = COUNTS.double() / COUNTS.sum()
LABEL = torch.arange(12) % 4


def logits(scale: float = 2.0) -> Tensor:
    return scale * torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def made(kind: LossName, told: Tensor | None = None, **settings: Any) -> ClassLosses:
    losses = LOSSES[kind](LossSettings(kind, **settings), 4)
    if losses.needs is not None:
        losses.adapt({"counts": COUNTS, "prior": PRIOR}[losses.needs] if told is None else told)
    return losses


def of_label(losses: ClassLosses, given: Tensor) -> Tensor:
    return expected_losses(losses(given), F.one_hot(LABEL, 4).float())


def test_cross_entropy_is_that_of_torch() -> None:
    torch.testing.assert_close(
        of_label(made("cross_entropy"), logits()), F.cross_entropy(logits(), LABEL, reduction="none")
    )
    soft = logits(1.0).softmax(1)
    found = expected_losses(made("cross_entropy")(logits()), soft, 0.1, torch.tensor([1.0, 2.0, 0.0, 3.0]))
    assert torch.equal(found, soft_label_losses(logits(), soft, 0.1, torch.tensor([1.0, 2.0, 0.0, 3.0])))


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.5])
def test_logit_adjustment_adds_the_log_prior(tau: float) -> None:
    adjusted = logits() + tau * PRIOR.float().log()
    expected = F.cross_entropy(adjusted, LABEL, reduction="none")
    torch.testing.assert_close(of_label(made("logit_adjustment", tau=tau), logits()), expected)


def test_real_and_synthetic_samples_are_adjusted_by_their_own_prior() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    synthetic = torch.tensor([True, False, False, True, True, False])
    other = torch.tensor([0.1, 0.0, 0.6, 0.3])
    found = made("logit_adjustment", torch.stack([PRIOR, other]))(logits, synthetic)
    for told, rows in ((PRIOR, ~synthetic), (other, synthetic)):
        torch.testing.assert_close(found[rows], made("logit_adjustment", told)(logits[rows]))


def test_an_even_prior_adjusts_nothing() -> None:
    even = made("logit_adjustment", torch.full((4,), 0.25))
    torch.testing.assert_close(of_label(even, logits()), F.cross_entropy(logits(), LABEL, reduction="none"))


def test_logit_adjustment_learns_logits_without_the_prior() -> None:
    # Features that tell nothing: cross-entropy learns the log prior, the adjusted loss that all classes are alike.
    label = torch.repeat_interleave(torch.arange(4), torch.tensor([80, 12, 2, 6]))
    prior = torch.bincount(label) / len(label)
    learned = torch.zeros(4, requires_grad=True)
    optimiser = torch.optim.SGD([learned], lr=2.0)
    for _ in range(3000):
        optimiser.zero_grad()
        losses = made("logit_adjustment", prior)(learned.expand(len(label), 4))
        expected_losses(losses, F.one_hot(label, 4).float()).mean().backward()
        optimiser.step()
    assert float(learned.detach().std()) < 0.01


def test_a_class_without_a_share_has_that_of_the_rarest() -> None:
    losses = made("logit_adjustment", torch.tensor([0.7, 0.2, 0.0, 0.1]))
    expected = torch.tensor([0.7, 0.2, 0.1, 0.1]).log()
    torch.testing.assert_close(losses.get_buffer("offset"), expected.expand(2, -1))
    assert losses(logits()).isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss(gamma: float) -> None:
    p = logits().softmax(1).gather(1, LABEL.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(of_label(made("focal", gamma=gamma), logits()), -((1 - p) ** gamma) * p.log())
    sure = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    losses = made("focal", gamma=gamma)(sure)
    losses.sum().backward()
    assert losses.isfinite().all() and sure.grad is not None and sure.grad.isfinite().all()
    assert float(losses[0, 0].detach()) == 0


def test_ldam_lowers_the_logit_of_the_label_by_its_margin() -> None:
    cosine = logits().tanh()
    margin = 0.5 * (161 / COUNTS) ** 0.25
    assert float(margin.max()) == 0.5 and int(margin.argmax()) == 2
    lowered = 30.0 * (cosine - F.one_hot(LABEL, 4) * margin)
    expected = F.cross_entropy(lowered, LABEL, reduction="none")
    torch.testing.assert_close(of_label(made("ldam"), 30.0 * cosine), expected, rtol=1e-5, atol=1e-5)
    without = made("ldam", max_margin=0.0)
    torch.testing.assert_close(of_label(without, cosine), F.cross_entropy(cosine, LABEL, reduction="none"))


def test_a_class_without_a_row_has_the_margin_of_the_rarest() -> None:
    losses = made("ldam", torch.tensor([100, 0, 4, 50]))
    margin = losses.get_buffer("margin")
    assert margin[1] == margin[2] == 0.5 and losses(logits()).isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_a_soft_label_has_the_expected_loss(kind: LossName) -> None:
    losses, soft = made(kind), logits(1.0).flip(0).softmax(1)
    each = torch.stack(
        [expected_losses(losses(logits()), F.one_hot(torch.full((12,), c), 4).float()) for c in range(4)], 1
    )
    torch.testing.assert_close(expected_losses(losses(logits()), soft), (soft * each).sum(1))
    weights = torch.tensor([1.0, 2.0, 0.0, 3.0])
    torch.testing.assert_close(expected_losses(losses(logits()), soft, 0.0, weights), (soft * each * weights).sum(1))


@pytest.mark.parametrize("kind", LOSSES)
def test_nothing_of_a_loss_enters_a_checkpoint(kind: LossName) -> None:
    assert not made(kind).state_dict() and not list(made(kind).parameters())


def test_every_name_is_one_of_the_setting_s() -> None:
    assert get_args(LossName) == tuple(LOSSES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "hinge"},
            "model.loss.kind: found 'hinge', expected one of cross_entropy, logit_adjustment, focal, ldam",
        ),
        ({"prior": "even"}, "model.loss.prior: found 'even', expected drawn, per_source or real"),
        ({"tau": -1.0}, "model.loss.tau: found -1.0, expected a number ≥ 0"),
        ({"gamma": float("nan")}, "model.loss.gamma: found nan, expected a number ≥ 0"),
        ({"max_margin": -0.1}, "model.loss.max_margin: found -0.1, expected a number ≥ 0"),
        ({"scale": 0.0}, "model.loss.scale: found 0.0, expected a number > 0"),
        ({"beta": 1.0}, "model.loss.beta: found 1.0, expected a number in [0, 1)"),
        ({"smoothing": "odd"}, "model.loss.smoothing: found 'odd', expected even or rebalanced"),
        ({"consistency": -1.0}, "model.loss.consistency: found -1.0, expected a number ≥ 0"),
        ({"defer_from": 1.0}, "model.loss.defer_from: found 1.0, expected a number in [0, 1)"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^model\.loss") as caught:
        LossSettings(**settings)
    assert str(caught.value) == message


def test_what_does_not_go_together() -> None:
    with pytest.raises(
        ValueError, match=r"found 'balanced', expected null beside model\.loss\.kind 'logit_adjustment'"
    ):
        check_together(LossSettings("logit_adjustment"), "balanced", 0.0)
    check_together(LossSettings("logit_adjustment"), [1.0, 2.0], 0.0)  # whoever gives numbers means them
    with pytest.raises(
        ValueError, match=r"model\.loss\.defer_from: found 0\.8, expected 0 without model\.class_weights"
    ):
        check_together(LossSettings("ldam", defer_from=0.8), None, 0.0)
    with pytest.raises(ValueError, match=r"model\.loss\.consistency: found 0\.1, expected 0 beside 'ldam'"):
        check_together(LossSettings("ldam", consistency=0.1), None, 0.0)
    check_together(LossSettings("ldam", defer_from=0.8), "effective_number", 0.0)
    with pytest.raises(
        ValueError, match=r"model\.loss\.smoothing: found 'rebalanced', expected even without model\.label_sm"
    ):
        check_together(LossSettings(smoothing="rebalanced"), None, 0.0)
