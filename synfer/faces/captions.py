"""Captions of faces from templates, for samples that come without one.

The vocabulary is small and closed, so a tokenizer can be built from :data:`VOCABULARY` without a download.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from synfer.faces.expressions import EXPRESSIONS
from synfer.foundation.counter_based_random import keyed_uniform
from synfer.foundation.random_streams import Stream

ADJECTIVES = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgusted",
    "anger": "angry",
    "contempt": "contemptuous",
}
"""How an expression is called inside a caption."""

TEMPLATES = (
    "a photo of a face with a {} expression",  # SynFER's prompt (arXiv 2410.09865); also the one for synthesis
    "a photo of a person with a {} face",
    "a close-up portrait of a {} person",
    "a picture of a person who looks {}",
    "a {} face",
)
"""Sentences with one place for the adjective; the first is the canonical one."""


def caption_for(expression: str, key: int | None = None) -> str:
    """Returns a caption of a face.

    Args:
        expression: canonical name.
        key: integer that chooses the template; None takes the canonical template.

    Raises:
        ValueError: the expression is unknown.
    """
    if key is None:
        return _fill(0, expression)
    return captions_for([expression], np.array([key], dtype=np.uint64))[0]


def captions_for(expressions: Sequence[str], keys: np.ndarray) -> list[str]:
    """Returns one caption per sample; half of them follow the canonical template, the others are spread evenly.

    Args:
        expressions: n canonical names.
        keys: n integers, one per sample, that choose the templates.

    Raises:
        ValueError: an expression is unknown.
    """
    return [_fill(index, name) for index, name in zip(_templates(keys), expressions, strict=True)]


def expression_in(caption: str) -> str:
    """Returns the expression that a caption names by its adjective.

    Raises:
        ValueError: it names none, or several.
    """
    words = set(caption.split())
    found = [name for name, word in ADJECTIVES.items() if word in words]
    if len(found) != 1:
        raise ValueError(f"caption '{caption}': found {len(found)} expressions in it, expected one")
    return found[0]


def neutral_caption(caption: str, expression: str) -> str:
    """Returns the same caption of a neutral face: "an angry woman" becomes "a neutral woman".

    Args:
        caption: that calls the expression as :data:`ADJECTIVES` do, in whatever case.
        expression: canonical name.

    Raises:
        ValueError: the caption does not say that word: what in it is the expression is not known.
    """
    word = ADJECTIVES[expression]
    pattern = rf"\b(?:(a)n?(\s+))?{re.escape(word)}\b"
    neutral, found = re.subn(pattern, lambda m: f"{m[1] or ''}{m[2] or ''}neutral", caption, flags=re.IGNORECASE)
    if not found:
        raise ValueError(f"found the caption '{caption}' of a face that is to be {word}, expected one with that word")
    return neutral


def _templates(keys: np.ndarray) -> list[int]:
    uniform = keyed_uniform(keys, 1, Stream.CAPTION)[:, 0]
    others = len(TEMPLATES) - 1
    template = np.where(uniform < 0.5, 0, 1 + np.minimum((uniform - 0.5) * 2 * others, others - 1).astype(np.int64))
    return template.tolist()


def _fill(template: int, expression: str) -> str:
    try:
        return _FILLED[expression][template]
    except KeyError:
        raise ValueError(
            f"no caption for expression '{expression}': expected one of {', '.join(EXPRESSIONS)}"
        ) from None


def captions_without_expression(keys: np.ndarray) -> list[str]:
    """Returns one caption per sample that names no expression, spread as those of :func:`captions_for` are.

    Args:
        keys: n integers, one per sample, that choose the templates.
    """
    return [_WITHOUT_EXPRESSION[index] for index in _templates(keys)]


PLAIN_CAPTION = "a photo of a face"
"""The canonical sentence without the adjective."""

_WITHOUT_EXPRESSION = (
    PLAIN_CAPTION,
    "a photo of a person",
    "a close-up portrait of a person",
    "a picture of a person",
    "a face",
)
"""The sentences of :data:`TEMPLATES` without the adjective; their words are all in :data:`VOCABULARY`."""

_FILLED = {name: tuple(template.format(word) for template in TEMPLATES) for name, word in ADJECTIVES.items()}

VOCABULARY = tuple(sorted({word for captions in _FILLED.values() for caption in captions for word in caption.split()}))
"""Every word that a template caption can hold; words are separated by single blanks."""
