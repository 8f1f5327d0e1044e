"""Which sampler draws the classes, and what labels that makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from datamodules.loading.class_sampling import ClassSampling, drawn_shares, label_shares
from synfer.labels.class_shares import CLASS_SHARES, repeat_factor_shares
from tests.fixtures.tiny_data import tiny_table

TABLE = tiny_table(10)  # seven classes: 2, 2, 2, 1, 1, 1, 1


def test_every_name_is_one_of_the_setting_s() -> None:
    assert get_args(get_type_hints(ClassSampling)["kind"]) == tuple(CLASS_SHARES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "inverse"},
            r"data\.class_sampling\.kind=inverse: expected one of none, balanced, square_root, ",
        ),
        ({"beta": 1.0}, r"data\.class_sampling\.beta=1\.0: expected a number in \[0, 1\)"),
        ({"threshold": 0.0}, r"data\.class_sampling\.threshold=0\.0: expected a share in \(0, 1\], or null"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ClassSampling(**settings)


def test_shares_of_the_draws_by_either_setting() -> None:
    counts = TABLE.count_per_class()
    np.testing.assert_allclose(drawn_shares(TABLE, 0.0, ClassSampling()), counts / 10)
    np.testing.assert_allclose(drawn_shares(TABLE, 1.0, ClassSampling()), np.full(7, 1 / 7))
    by_threshold = ClassSampling("repeat_factor", threshold=0.15)
    np.testing.assert_allclose(drawn_shares(TABLE, 0.0, by_threshold), repeat_factor_shares(counts, 0.15))


def test_soft_labels_give_a_part_of_each_row_to_other_classes() -> None:
    shares = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(label_shares(TABLE, shares), shares)  # one-hot: the classes themselves
    soft = TABLE.soft_label.copy()
    soft[TABLE.label == 0] = [0.5, 0.5, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(
        label_shares(replace(TABLE, soft_label=soft), shares), [0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1], atol=1e-7
    )
