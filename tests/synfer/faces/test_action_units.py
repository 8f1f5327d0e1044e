"""Action units: their names, where they act, what expressions are made of, and what a mirror does to them."""

from __future__ import annotations

import numpy as np
import pytest

from synfer.faces.action_units import (
    ACTION_UNITS,
    FACS_PROTOTYPES,
    REGIONS,
    action_unit_indices,
    mirrored_order,
    sample_action_units,
)
from synfer.faces.expressions import EXPRESSIONS


def test_each_action_unit_acts_in_one_region() -> None:
    assert len(ACTION_UNITS) == len(set(ACTION_UNITS)) == 41
    assert sorted(name for region in REGIONS.values() for name in region) == sorted(ACTION_UNITS)


def test_every_expression_has_a_prototype_of_known_action_units() -> None:
    assert tuple(FACS_PROTOTYPES) == EXPRESSIONS
    for prototype in FACS_PROTOTYPES.values():
        assert set(prototype.core + prototype.often) <= set(ACTION_UNITS)
        assert not set(prototype.core) & set(prototype.often)


def test_places_by_name() -> None:
    assert [ACTION_UNITS[place] for place in action_unit_indices(["AU12", "AUL12"])] == ["AU12", "AUL12"]
    with pytest.raises(ValueError, match="unknown action unit 'AU8': expected one of AU6, AU12"):
        action_unit_indices(["AU8"], ("AU6", "AU12"))


def test_core_units_act_and_often_ones_half_of_the_time() -> None:
    uniform = np.random.default_rng(0).random((400, 2, 41))
    vectors = sample_action_units(["happy"] * 200 + ["neutral"] * 200, uniform)
    assert vectors.dtype == np.float32 and not vectors[200:].any()
    core, often = (vectors[:200, action_unit_indices(names)] for names in (("AU6", "AU12"), ("AU25",)))
    assert core.min() >= 0.5 and core.max() <= 1
    assert 0.4 < (often > 0).mean() < 0.6 and often[often > 0].min() >= 0.3 and often.max() <= 0.9
    others = np.delete(vectors[:200], action_unit_indices(["AU6", "AU12", "AU25"]), axis=1)
    assert not others.any()


def test_whoever_takes_fewer_action_units_gets_those_of_the_prototype_that_it_takes() -> None:
    uniform = np.full((1, 2, 2), 0.4)
    assert sample_action_units(["happy"], uniform, ("AU12", "AU4")).tolist() == [[pytest.approx(0.7), 0.0]]
    assert sample_action_units(["happy", "sad"], np.empty((2, 2, 0)), ()).shape == (2, 0)


def test_a_mirror_changes_the_sides() -> None:
    order = mirrored_order()
    assert [ACTION_UNITS[place] for place in order] == [
        {"AUL": "AUR", "AUR": "AUL"}.get(name[:3], name[:3]) + name[3:] for name in ACTION_UNITS
    ]
    vectors = np.random.default_rng(1).random((3, 41))
    np.testing.assert_array_equal(vectors[:, order][:, order], vectors)
    with pytest.raises(ValueError, match="unknown action unit 'AUR12'"):
        mirrored_order(("AU6", "AUL12"))
