"""Metrics sorted and rounded, and durations."""

from __future__ import annotations

import math

import pytest

from synfer.runs.metric_text import in_order, metric_lines, number_text
from synfer.runs.time_text import time_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.71428, "0.7143"),
        (0.05, "0.0500"),
        (0.0001234567, "0.0001235"),
        (1.93999, "1.940"),
        (12.3456, "12.35"),
        (40.0, "40"),
        (4021.4, "4021"),
        (123456.7, "123457"),
        (-0.25, "-0.2500"),
        (0.0, "0"),
        (math.nan, "?"),
    ],
)
def test_four_digits_count(value: float, text: str) -> None:
    assert number_text(value) == text


def test_main_figures_come_first_and_single_classes_last() -> None:
    names = ["test/recall/fear", "test/ece", "test/loss", "test/accuracy", "test/f1/sad", "test/macro_f1"]
    order = ["test/accuracy", "test/macro_f1", "test/loss", "test/ece", "test/f1/sad", "test/recall/fear"]
    assert in_order(names) == order


def test_numbers_are_below_each_other() -> None:
    assert metric_lines({"test/ece": 0.1, "test/accuracy": 0.5}) == [
        "  test/accuracy  0.5000",
        "  test/ece       0.1000",
    ]
    assert metric_lines({}) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (61, "1:01"), (3600, "1:00:00"), (90_061, "1 d 1:01:01"), (-3, "0:00"), (math.inf, "?")],
)
def test_durations(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
