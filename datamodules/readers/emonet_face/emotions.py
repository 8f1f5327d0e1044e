"""The forty emotions of EmoNet-Face, and which of them are expressions that the project knows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from synfer.faces.expressions import canonical_expression
from synfer.foundation.file_reading import did_you_mean

_KEY = "data.reader.init_args.emotions"

EMOTIONS = (
    *("Amusement", "Elation", "Pleasure/Ecstasy", "Contentment", "Thankfulness/Gratitude", "Affection"),
    *("Infatuation", "Hope/Enthusiasm/Optimism", "Triumph", "Pride", "Interest", "Awe", "Astonishment/Surprise"),
    *("Concentration", "Contemplation", "Relief", "Longing", "Teasing", "Impatience and Irritability", "Sexual Lust"),
    *("Doubt", "Fear", "Distress", "Confusion", "Embarrassment", "Shame", "Disappointment", "Sadness", "Bitterness"),
    *("Contempt", "Disgust", "Anger", "Malevolence/Malice", "Sourness", "Pain", "Helplessness", "Fatigue/Exhaustion"),
    *("Emotional Numbness", "Intoxication/Altered States of Consciousness", "Jealousy & Envy"),
)
"""Names of the release's guide (data/guide.json of LAION-AI/emonet-face), in its order."""

NAMED = {
    "Elation": "happy",
    "Astonishment/Surprise": "surprise",
    "Fear": "fear",
    "Sadness": "sad",
    "Contempt": "contempt",
    "Disgust": "disgust",
    "Anger": "anger",
}
"""Emotion → expression, by a rule of words: its name, a part of its name, or one of the words that the release's guide
explains it with, is a name of the expression (Elation is explained as happiness and joy). No emotion is neutral."""

_ALSO = {"hopelessness": "Helplessness"}
"""What the table of the binary set calls it; the guide explains helplessness as hopelessness, among others."""


def _plain(name: str) -> str:
    words = re.sub(r"[^a-z]+", " ", name.lower()).split()
    return " ".join(word for word in words if word != "and")


_BY_WORDS = {_plain(name): name for name in EMOTIONS} | _ALSO


def canonical_emotion(name: str) -> str | None:
    """Returns an emotion's name as the guide writes it, whatever the family in front ("Joy|Elation"), case and signs.

    None for the further dimensions of the HQ set ("Extra Dimensions|…"), which are no emotions.

    Raises:
        ValueError: it is none of the forty.
    """
    family, _, own = name.rpartition("|")
    if _plain(family) == "extra dimensions":
        return None
    found = _BY_WORDS.get(_plain(own))
    if found is None:
        raise ValueError(f"found the emotion '{name}', expected one of the forty of the release's guide")
    return found


def chosen_emotions(given: Mapping[str, str | None] | None) -> dict[str, str]:
    """Returns emotion → expression: those that are named like it, with what a user adds or (null) takes away.

    Raises:
        ValueError: an unknown emotion or expression.
    """
    chosen = dict(NAMED)
    for name, expression in (given or {}).items():
        emotion = _BY_WORDS.get(_plain(name))
        if emotion is None:
            hint = did_you_mean(name, list(EMOTIONS))
            raise ValueError(f"{_KEY}: found the emotion '{name}', expected one of the forty of the release{hint}")
        chosen.pop(emotion, None)
        if expression is not None:
            try:
                chosen[emotion] = canonical_expression(expression)
            except ValueError as error:
                raise ValueError(f"{_KEY}.{name}: {error}") from None
    return chosen
