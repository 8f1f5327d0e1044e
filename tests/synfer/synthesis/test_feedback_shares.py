"""What is recognised least is made most, and nothing is forgotten."""

from __future__ import annotations

import pytest

from synfer.synthesis.feedback_shares import FeedbackSettings, feedback_shares

NAMES = ("happy", "sad", "fear")


def test_shares_follow_what_is_missed() -> None:
    shares = feedback_shares({"happy": 0.9, "sad": 0.6, "fear": 0.5}, NAMES, FeedbackSettings(floor=0.1))
    expected = {"happy": 0.9 * 0.1 + 0.1 / 3, "sad": 0.9 * 0.4 + 0.1 / 3, "fear": 0.9 * 0.5 + 0.1 / 3}
    assert shares == pytest.approx(expected) and sum(shares.values()) == pytest.approx(1)


def test_power_sharpens() -> None:
    recalls = {"happy": 0.9, "sad": 0.6, "fear": 0.5}
    fear = [feedback_shares(recalls, NAMES, FeedbackSettings(power, 0.1))["fear"] for power in (0.5, 1, 2, 8)]
    assert fear == sorted(fear) and fear[0] < fear[-1]


def test_nothing_falls_below_the_floor() -> None:
    shares = feedback_shares({"happy": 1.0, "sad": 0.0, "fear": 1.0}, NAMES, FeedbackSettings(floor=0.3))
    assert shares == pytest.approx({"happy": 0.1, "sad": 0.8, "fear": 0.1})
    assert feedback_shares({"sad": 0.2}, NAMES, FeedbackSettings(floor=1)) == pytest.approx(dict.fromkeys(NAMES, 1 / 3))


def test_an_expression_without_a_recall_has_the_mean_need() -> None:
    shares = feedback_shares({"happy": 0.8, "sad": 0.2}, NAMES, FeedbackSettings(floor=0.1))
    assert shares["fear"] == pytest.approx((shares["happy"] + shares["sad"]) / 2)


def test_all_are_recognised() -> None:
    assert feedback_shares(dict.fromkeys(NAMES, 1.0), NAMES, FeedbackSettings()) == pytest.approx(
        dict.fromkeys(NAMES, 1 / 3)
    )


@pytest.mark.parametrize("settings", [{"power": 0.0}, {"power": float("nan")}, {"floor": 0.0}, {"floor": 1.1}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"^synthesis.feedback.{name}: found .*, expected a number"):
        FeedbackSettings(**settings)
