"""t-intervals against tabulated quantiles, and against what an interval promises."""

from __future__ import annotations

import math
import random

import pytest

from experiments.compare.intervals import paired_difference, t_interval


def test_against_the_tabulated_quantile() -> None:
    # t(0.975, 2) = 4.3027; s of 1, 2, 3 is 1.
    found = t_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0 and found.n == 3
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.low == pytest.approx(2 - 2.484138, abs=1e-5) and found.high == pytest.approx(2 + 2.484138, abs=1e-5)
    # t(0.975, 9) = 2.2622, t(0.95, 1) = 6.3138.
    ten = t_interval([0.0] * 5 + [1.0] * 5)
    assert ten.half_width == pytest.approx(2.262157 * math.sqrt(2.5 / 9) / math.sqrt(10), rel=1e-6)
    assert t_interval([0.0, 2.0], confidence=0.9).half_width == pytest.approx(6.313752, rel=1e-6)


def test_one_value_has_no_interval() -> None:
    found = t_interval([0.7])
    assert (found.mean, found.half_width, found.low, found.high, found.n) == (0.7, None, None, None, 1)
    assert not found.excludes_zero


def test_no_values() -> None:
    with pytest.raises(ValueError, match="found no values"):
        t_interval([])


def test_covers_the_true_mean_as_often_as_it_says() -> None:
    draw = random.Random(0)
    trials, inside = 4000, 0
    for _ in range(trials):
        found = t_interval([draw.gauss(0.6, 0.02) for _ in range(3)])
        assert found.low is not None and found.high is not None
        inside += found.low <= 0.6 <= found.high
    assert 0.935 < inside / trials < 0.965


def test_paired_difference_uses_shared_seeds_only() -> None:
    found = paired_difference({1: 0.5, 2: 0.7, 3: 0.6, 9: 0.0}, {1: 0.4, 2: 0.5, 3: 0.3, 8: 1.0})
    assert found is not None
    assert found.n == 3 and found.mean == pytest.approx(0.2)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert not found.excludes_zero  # ± 0.248


def test_pairing_removes_what_a_seed_does_to_both() -> None:
    seed_effect = {1: 0.0, 2: 0.2, 3: -0.2, 4: 0.1}
    control = {seed: 0.5 + effect for seed, effect in seed_effect.items()}
    treated = {seed: value + 0.03 + 0.001 * seed for seed, value in control.items()}
    found = paired_difference(treated, control)
    assert found is not None and found.excludes_zero
    assert found.half_width is not None and found.half_width < 0.01
    unpaired = t_interval(list(treated.values())).half_width
    assert unpaired is not None and unpaired > 0.1


def test_no_shared_seed() -> None:
    assert paired_difference({1: 0.5}, {2: 0.5}) is None


def test_two_seeds_far_apart_say_nothing_about_a_share() -> None:
    found = t_interval([0.6, 0.7], bounds=(0.0, 1.0))  # ± 0.635
    assert found.is_withheld and found.half_width is found.low is found.high is None
    assert found.mean == pytest.approx(0.65) and found.values == (0.6, 0.7) and not found.excludes_zero
    close = t_interval([0.65, 0.66], bounds=(0.0, 1.0))
    assert not close.is_withheld and close.half_width == pytest.approx(12.7062 * 0.005, rel=1e-4)
    assert t_interval([0.6, 0.7]).half_width is not None  # any number is possible


def test_an_interval_ends_where_values_end() -> None:
    found = t_interval([0.9, 0.95, 0.99], bounds=(0.0, 1.0))
    assert found.is_cut and found.high == 1.0 and found.low == pytest.approx(found.mean - (found.half_width or 0))
    plain = t_interval([0.5, 0.51, 0.52], bounds=(0.0, 1.0))
    assert not plain.is_cut


def test_a_difference_of_shares_ends_at_one() -> None:
    found = paired_difference({1: 1.0, 2: 0.9}, {1: 0.1, 2: 0.2}, bounds=(-1.0, 1.0))
    assert found is not None and found.is_withheld and not found.excludes_zero
