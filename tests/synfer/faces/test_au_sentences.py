from __future__ import annotations

import numpy as np
import pytest

from synfer.faces.action_units import ACTION_UNITS
from synfer.faces.au_sentences import au_phrase, au_sentence
from synfer.faces.expression_words import names_expression


def units(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in ACTION_UNITS], dtype=np.float32)


def test_every_action_unit_has_words_of_its_own_that_name_no_expression() -> None:
    phrases = [au_phrase(name) for name in ACTION_UNITS]
    assert len(set(phrases)) == len(ACTION_UNITS) and not any(map(names_expression, phrases))
    assert au_phrase("AU1") == "raised inner brows" and au_phrase("AUL12") == "pulled-up left lip corner"
    for wrong in ("AU3", "AUL5", "brow"):
        with pytest.raises(ValueError, match=rf"found action unit '{wrong}'"):
            au_phrase(wrong)


@pytest.mark.parametrize(
    ("intensity", "word"),
    [(0.01, "Barely"), (0.2, "Barely"), (0.21, "Slightly"), (0.6, "Clearly"), (0.8, "Strongly"), (1.0, "Extremely")],
)
def test_intensities_have_the_words_of_facs_a_to_e(intensity: float, word: str) -> None:
    assert au_sentence(units(AU25=intensity), ACTION_UNITS, 0) == f"{word} parted lips."


def test_order_is_of_the_sample_alone() -> None:
    face = units(AU1=0.5, AU6=0.5, AU12=0.5, AU25=0.5)
    said = {au_sentence(face, ACTION_UNITS, key) for key in range(40)}
    assert 10 < len(said) <= 24
    assert {tuple(sorted(s[:-1].lower().split(", "))) for s in said} == {
        ("clearly parted lips", "clearly pulled-up lip corners", "clearly raised cheeks", "clearly raised inner brows")
    }
    assert au_sentence(face, ACTION_UNITS, 7) == au_sentence(face, ACTION_UNITS, 7)


def test_what_is_unknown_is_not_said() -> None:
    assert au_sentence(np.full(41, np.nan), ACTION_UNITS, 0) == ""
    some = np.full(41, np.nan, dtype=np.float32)
    some[ACTION_UNITS.index("AU4")] = 0
    assert au_sentence(some, ACTION_UNITS, 0) == "Face at rest."
    some[ACTION_UNITS.index("AU9")] = 1
    assert au_sentence(some, ACTION_UNITS, 0) == "Extremely wrinkled nose."


def test_presence_has_no_strength() -> None:
    face = units(AU25=1, AU12=0.4, AU4=0.6)
    said = au_sentence(face, ACTION_UNITS, 0, without_strength={"AU25", "AU12"})
    assert sorted(said[:-1].lower().split(", ")) == ["clearly lowered brows", "parted lips"]


def test_one_side_is_not_said_beside_both() -> None:
    assert au_sentence(units(AU12=1, AUL12=1), ACTION_UNITS, 0) == "Extremely pulled-up lip corners."
    assert au_sentence(units(AUR12=1), ACTION_UNITS, 0) == "Extremely pulled-up right lip corner."
