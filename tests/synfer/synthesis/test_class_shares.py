"""Shares of expressions follow from the training rows, and what cannot be planned is one line."""

from __future__ import annotations

import pytest

from synfer.synthesis.class_shares import PLANS, check_plan, class_shares, missing_faces, shares_in_words

COUNTS = {"neutral": 60, "happy": 100, "fear": 20, "disgust": 20}
ALL = list(COUNTS)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ("even", [0.25, 0.25, 0.25, 0.25]),
        ("real", [0.3, 0.5, 0.1, 0.1]),
        ("fill", [0.2, 0.0, 0.4, 0.4]),
        ("inverse", [0.1316, 0.0789, 0.3947, 0.3947]),
    ],
)
def test_shares(plan: str, expected: list[float]) -> None:
    shares = class_shares(plan, COUNTS, ALL, "synthesis.plan")
    assert list(shares) == ALL and sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == pytest.approx(expected, abs=1e-4)


def test_every_plan_is_tested_above() -> None:
    assert set(PLANS) == {"even", "real", "fill", "inverse"}


def test_filling_up_makes_all_classes_equal() -> None:
    shares, missing = class_shares("fill", COUNTS, ALL, "synthesis.plan"), missing_faces(COUNTS, ALL)
    assert missing == 200
    assert {round(COUNTS[name] + missing * share, 6) for name, share in shares.items()} == {100}


def test_chosen_expressions_are_filled_up_to_the_largest_of_all() -> None:
    assert class_shares("fill", COUNTS, ["neutral", "fear"], "k") == pytest.approx({"neutral": 1 / 3, "fear": 2 / 3})
    assert missing_faces(COUNTS, ["neutral", "fear"]) == 120
    assert class_shares("real", COUNTS, ["fear", "neutral"], "k") == pytest.approx({"fear": 0.25, "neutral": 0.75})
    assert class_shares("even", {}, ["fear", "happy", "fear"], "k") == {"fear": 0.5, "happy": 0.5}


@pytest.mark.parametrize("plan", ["real", "fill", "inverse"])
def test_an_expression_without_a_training_row(plan: str) -> None:
    counts = {**COUNTS, "contempt": 0}
    with pytest.raises(ValueError, match=rf"^synthesis.plan={plan}: found no training row of 'contempt', expected at"):
        class_shares(plan, counts, [*ALL, "contempt"], "synthesis.plan")
    with pytest.raises(ValueError, match=r"leave it out of data.synthesis_expressions, or data.synthesis_plan=even"):
        class_shares(plan, counts, [*ALL, "contempt"], "data.synthesis_plan")
    assert class_shares(plan, counts, ALL, "synthesis.plan") == class_shares(plan, COUNTS, ALL, "synthesis.plan")


def test_nothing_to_fill_up() -> None:
    with pytest.raises(ValueError, match=r"^synthesis.plan=fill: found happy 9, sad 9 training rows, expected an expr"):
        class_shares("fill", {"happy": 9, "sad": 9}, ["happy", "sad"], "synthesis.plan")
    with pytest.raises(ValueError, match=r"found happy 100 training rows"):
        class_shares("fill", COUNTS, ["happy"], "synthesis.plan")


def test_unknown_plans() -> None:
    with pytest.raises(ValueError, match=r"^synthesis.plan: found 'evn', expected even, real, fill, inverse or feedb"):
        check_plan("synthesis.plan", "evn", "feedback")
    with pytest.raises(
        ValueError, match=r"found 'feedback', expected even, real, fill or inverse \(feedback needs a t"
    ):
        check_plan("data.synthesis_plan", "feedback")
    check_plan("synthesis.plan", "feedback", "feedback")


def test_shares_as_text() -> None:
    assert shares_in_words({"fear": 0.25, "happy": 0.75}) == "fear 0.250, happy 0.750"
