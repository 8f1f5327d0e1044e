"""From what several people said of a face to its label: one rule for yes and no, and for intensities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Said = dict[str, dict[str, float]]
"""Annotator → emotion → what he said: 0 or 1, or an intensity."""


@dataclass(frozen=True)
class Judged:
    """What a face shows.

    Attributes:
        expression: the strongest.
        shares: expression → share of the soft label, 1 together.
        annotators: how many people were asked about it.
        agreement: share of them who say it themselves.
    """

    expression: str
    shares: dict[str, float]
    annotators: int
    agreement: float


def judge(said: Said, emotions: Mapping[str, str], least: float, only_strongest: bool) -> Judged | str:
    """Returns what a face shows, or the reason why that is not clear.

    The strength of an emotion is the mean of what the people say who were asked about it. That of an expression is the
    strongest of its emotions', so that one with many has no advantage. The soft label are these strengths over their
    sum.

    Args:
        said: of one face.
        emotions: emotion → expression; the others have none.
        least: strength below which a face shows no expression.
        only_strongest: whether an emotion without an expression that is stronger than all expressions leaves it out.
    """
    strength: dict[str, float] = {}
    for emotion in {emotion for of_one in said.values() for emotion in of_one}:
        answers = [of_one[emotion] for of_one in said.values() if emotion in of_one]
        strength[emotion] = sum(answers) / len(answers)
    scores: dict[str, float] = {}
    for emotion, value in strength.items():
        if emotion in emotions and value > 0:
            scores[emotions[emotion]] = max(value, scores.get(emotions[emotion], 0.0))
    top = max(scores.values(), default=0.0)
    if top < least or not top:
        return "no expression is strong enough"
    if only_strongest and any(value > top for emotion, value in strength.items() if emotion not in emotions):
        return "another emotion is stronger than every expression"
    first = [name for name, value in scores.items() if value == top]
    if len(first) > 1:
        return "two expressions are equally strong"
    total = sum(scores.values())
    asked = [of_one for of_one in said.values() if any(emotions.get(emotion) == first[0] for emotion in of_one)]
    agree = sum(_says(of_one, first[0], emotions) for of_one in asked)
    shares = {name: value / total for name, value in scores.items()}
    return Judged(first[0], shares, len(asked), agree / len(asked))


def agreement_in_words(judged: Judged) -> str:
    """Returns the value of the attribute "agreement": all, most, half, fewer, or one annotator."""
    if judged.annotators == 1:
        return "one annotator"
    if judged.agreement == 1:
        return "all"
    return "most" if judged.agreement > 0.5 else "half" if judged.agreement == 0.5 else "fewer"


def _says(of_one: Mapping[str, float], expression: str, emotions: Mapping[str, str]) -> bool:
    """Whether an annotator finds no other expression stronger than this one, and this one at all."""
    own = dict.fromkeys(set(emotions.values()), 0.0)
    for emotion, value in of_one.items():
        if emotion in emotions:
            own[emotions[emotion]] = max(own[emotions[emotion]], value)
    return own[expression] > 0 and own[expression] >= max(own.values())
