"""Captions: the canonical sentence, stable choice, closed vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from synfer.faces.captions import (
    TEMPLATES,
    VOCABULARY,
    caption_for,
    captions_for,
    captions_without_expression,
    neutral_caption,
)
from synfer.faces.expression_words import without_expression
from synfer.faces.expressions import EXPRESSIONS


def test_canonical_caption() -> None:
    assert caption_for("happy") == "a photo of a face with a happy expression"


def test_every_word_is_in_the_vocabulary() -> None:
    for name in EXPRESSIONS:
        for key in range(50):
            assert set(caption_for(name, key).split()) <= set(VOCABULARY)
    assert len(VOCABULARY) < 64 and len(set(VOCABULARY)) == len(VOCABULARY)


def test_choice_depends_on_the_key_alone_and_uses_all_templates() -> None:
    keys = np.arange(4000, dtype=np.uint64)
    captions = captions_for(["fear"] * 4000, keys)
    assert captions[17] == caption_for("fear", 17)
    share = captions.count(caption_for("fear")) / 4000
    assert 0.46 < share < 0.54
    assert set(captions) == {template.format("fearful") for template in TEMPLATES}


@pytest.mark.parametrize("key", [None, 3])
def test_unknown_expression(key: int | None) -> None:
    with pytest.raises(ValueError, match="no caption for expression 'bored'"):
        caption_for("bored", key)


def test_captions_without_expression_are_those_of_the_same_keys_without_the_word() -> None:
    keys = np.arange(200, dtype=np.uint64)
    without = captions_without_expression(keys)
    for name in EXPRESSIONS:
        assert without == [without_expression(caption) for caption in captions_for([name] * 200, keys)]
    assert {word for caption in without for word in caption.split()} <= set(VOCABULARY)


def test_the_neutral_face_of_every_template_caption() -> None:
    for name in EXPRESSIONS:
        for key in range(50):
            assert neutral_caption(caption_for(name, key), name) == caption_for("neutral", key)


@pytest.mark.parametrize(
    ("caption", "neutral"),
    [
        ("An angry man, angry at heart", "A neutral man, neutral at heart"),
        ("the Angry\tone", "the neutral\tone"),
        ("a   angry face", "a   neutral face"),
        ("Chan angry", "Chan neutral"),
    ],
)
def test_neutral_captions_of_ones_own(caption: str, neutral: str) -> None:
    assert neutral_caption(caption, "anger") == neutral


def test_a_caption_that_does_not_say_the_expression() -> None:
    for caption in ("a face", "a sad face", "a face full of anger", "an angryish face"):
        with pytest.raises(
            ValueError, match=f"found the caption '{caption}' of a face that is to be angry, expected one"
        ):
            neutral_caption(caption, "anger")
