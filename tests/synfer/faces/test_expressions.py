"""Expressions by name, whatever a data set calls them, and the label spaces made of them."""

from __future__ import annotations

import pytest

from synfer.faces.expressions import (
    EXPRESSIONS,
    LABEL_SPACES,
    SYNONYMS,
    canonical_expression,
    map_label_space,
    resolve_label_space,
)


@pytest.mark.parametrize(
    ("written", "name"), [("Happiness", "happy"), (" ANGRY ", "anger"), ("fearful", "fear"), ("sad", "sad")]
)
def test_other_spellings(written: str, name: str) -> None:
    assert canonical_expression(written) == name


def test_synonyms_stand_for_expressions_and_are_none() -> None:
    assert set(SYNONYMS.values()) <= set(EXPRESSIONS) and not set(SYNONYMS) & set(EXPRESSIONS)


def test_an_unknown_expression_is_named_with_what_was_meant() -> None:
    with pytest.raises(ValueError, match=r"unknown expression 'hapy': expected one of neutral.*did you mean happ"):
        canonical_expression("hapy")


def test_label_spaces_by_name_and_as_lists() -> None:
    assert resolve_label_space("basic7") == EXPRESSIONS[:7] and resolve_label_space("ferplus8") == EXPRESSIONS
    assert resolve_label_space(["happiness", "angry"]) == ("happy", "anger")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("basic8", r"unknown label space 'basic8': expected one of basic7, ferplus8 or a list of names"),
        (["happy"], "expected at least two different expressions"),
        (["happy", "happiness"], "expected at least two different expressions"),
        (["happy", "bored"], "unknown expression 'bored'"),
    ],
)
def test_label_spaces_that_are_none(space: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_label_space(space)


def test_places_of_one_space_in_another() -> None:
    seven = LABEL_SPACES["basic7"]
    assert map_label_space(EXPRESSIONS, seven).tolist() == list(range(7))
    assert map_label_space(seven, ("anger", "contempt", "neutral")).tolist() == [6, -1, 0]
