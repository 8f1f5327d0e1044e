"""Shares of the classes among the draws: the formulas of the papers, and classes without a row."""

from __future__ import annotations

import numpy as np
import pytest

from synfer.labels.class_shares import (
    CLASS_SHARES,
    effective_number,
    effective_number_shares,
    repeat_factor_shares,
    tempered_shares,
)

COUNTS = np.array([8050, 4194, 0, 1138, 593, 309, 161])


@pytest.mark.parametrize("name", CLASS_SHARES)
def test_shares_sum_to_one_and_never_favour_a_frequent_class(name: str) -> None:
    shares = CLASS_SHARES[name](COUNTS, 0.999, None)
    assert shares.sum() == pytest.approx(1) and shares[2] == 0 and (shares[[0, 1, 3, 4, 5, 6]] > 0).all()
    per_row = shares[COUNTS > 0] / COUNTS[COUNTS > 0]  # how often a row is drawn: of rarer classes no less
    assert (np.diff(per_row) > -1e-12).all()


def test_balanced_and_square_root() -> None:
    np.testing.assert_allclose(CLASS_SHARES["none"](COUNTS, 0.9, None), COUNTS / COUNTS.sum())
    np.testing.assert_allclose(CLASS_SHARES["balanced"](COUNTS, 0.9, None), (COUNTS > 0) / 6)
    np.testing.assert_allclose(CLASS_SHARES["square_root"](COUNTS, 0.9, None), np.sqrt(COUNTS) / np.sqrt(COUNTS).sum())
    np.testing.assert_allclose(tempered_shares(COUNTS, 0.5), CLASS_SHARES["square_root"](COUNTS, 0.9, None))


def test_effective_numbers_are_a_geometric_series() -> None:
    for beta in (0.0, 0.9, 0.9999):
        by_hand = [sum(beta**i for i in range(n)) for n in (0, 1, 3, 161)]
        np.testing.assert_allclose(effective_number(np.array([0, 1, 3, 161]), beta), by_hand, rtol=1e-9)
    assert effective_number(np.array([10**6]), 1 - 1e-12)[0] == pytest.approx(10**6, rel=1e-5)  # no digits are lost


def test_effective_number_runs_from_as_they_are_to_balanced() -> None:
    np.testing.assert_allclose(effective_number_shares(COUNTS, 0.0), COUNTS / COUNTS.sum())
    np.testing.assert_allclose(effective_number_shares(COUNTS, 1 - 1e-9), (COUNTS > 0) / 6, atol=1e-5)
    weight = COUNTS[:2] / ((1 - 0.999 ** COUNTS[:2]) / (1 - 0.999))
    np.testing.assert_allclose(np.divide(*effective_number_shares(COUNTS, 0.999)[:2]), np.divide(*weight))


def test_repeat_factors() -> None:
    share = COUNTS / COUNTS.sum()
    found = repeat_factor_shares(COUNTS, 0.05)
    by_hand = [f * max(1.0, (0.05 / f) ** 0.5) if f else 0.0 for f in share]
    np.testing.assert_allclose(found, np.array(by_hand) / sum(by_hand))
    np.testing.assert_allclose(found[0] / found[1], share[0] / share[1])  # both above the threshold
    np.testing.assert_allclose(repeat_factor_shares(COUNTS, None), repeat_factor_shares(COUNTS, 1 / 6))
    np.testing.assert_allclose(repeat_factor_shares(COUNTS, share[6]), share)  # no class is below it
