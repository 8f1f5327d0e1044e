from __future__ import annotations

import re

import pytest

from synfer.faces.captions import ADJECTIVES, TEMPLATES
from synfer.faces.expression_words import EXPRESSION_WORDS, names_expression, without_expression
from synfer.faces.expressions import EXPRESSIONS, SYNONYMS


def test_every_expression_adjective_and_synonym_is_known() -> None:
    assert set(EXPRESSION_WORDS) == set(EXPRESSIONS)
    for name, words in EXPRESSION_WORDS.items():
        assert ADJECTIVES[name] in words
    every = {word for words in EXPRESSION_WORDS.values() for word in words}
    assert set(SYNONYMS) - {"happ"} <= every
    assert sum(map(len, EXPRESSION_WORDS.values())) == len(every)  # no word names two


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("An angry old man with a beard.", "An old man with a beard."),
        ("an unhappy apple", "an apple"),
        ("a happy-looking man in a suit", "a man in a suit"),
        ("Smiling woman in a blue dress", "Woman in a blue dress"),
        ("a joyful, smiling little girl", "a little girl"),
        ("a man with a big smile on his face and a hat", "a man with a hat"),
        ("A woman with a look of surprise on her face", "A woman"),
        ("a person with angry eyes and clenched teeth", "a person with clenched teeth"),
        ("a man with short hair and a smile", "a man with short hair"),
        ("a man wearing a frown and glasses", "a man wearing glasses"),
        ("a man who is smiling at the camera in a park", "a man in a park"),
        ("A man is smiling in a park.", "A man in a park."),
        ("A woman is laughing and holding a phone.", "A woman is holding a phone."),
        ("a man in anger shouting at a dog", "a man shouting at a dog"),
        ("a sad, angry man with grey hair, looking surprised and afraid", "a man with grey hair"),
        ("She is smiling. She wears a red hat.", "She wears a red hat."),
        ("Portrait of a happy, elderly woman; she appears cheerful.", "Portrait of an elderly woman"),
        ("A man in a suit looks angrily at the camera", "A man in a suit looks at the camera"),
    ],
)
def test_words_are_taken_out(caption: str, expected: str) -> None:
    assert without_expression(caption) == expected


@pytest.mark.parametrize("caption", ["he smiles", "the man looks sad", "a bride and groom smile for the camera", "Joy"])
def test_what_cannot_do_without_the_word_is_left_out(caption: str) -> None:
    assert without_expression(caption) is None


@pytest.mark.parametrize(
    "caption", ["a man in front of a neutral background", "a  woman , with  odd   blanks", "a saddle on a horse"]
)
def test_other_captions_stay_as_they_are(caption: str) -> None:
    assert without_expression(caption) == caption and not names_expression(caption)


def test_no_word_of_an_expression_is_ever_left() -> None:
    frames = [
        *TEMPLATES,
        "{} people",
        "The woman is {}.",
        "he {} at her, and sits down",
        "A man. {}!",
        "with {} and {}",
        "a {} {} dog and his {} friend by a lake",
        "Her {} was seen; two men stand near a tree",
    ]
    for words in EXPRESSION_WORDS.values():
        for number, word in enumerate(words):
            shown = (word, word.upper(), word.capitalize())[number % 3]
            for frame in frames:
                left = without_expression(frame.replace("{}", shown))
                assert left is None or not names_expression(left), (frame, shown, left)
                assert left is None or (len(re.findall(r"\w+", left)) > 1 and "  " not in left)
