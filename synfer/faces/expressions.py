"""Names of expressions and label spaces.

Labels are names everywhere (contract C2); an index has a meaning only together with its label space, an ordered tuple
of names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synfer.foundation.file_reading import did_you_mean

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""Every expression the project knows, in canonical order."""

LABEL_SPACES: dict[str, tuple[str, ...]] = {"basic7": EXPRESSIONS[:7], "ferplus8": EXPRESSIONS}
"""Label spaces that a config may name: ``basic7`` (FER2013, RAF-DB, AffectNet-7), ``ferplus8`` (FER+, AffectNet-8)."""

SYNONYMS = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "frightened": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "happ": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "suprise": "surprise",
    "contemptuous": "contempt",
}
"""Other spellings found in the folder names and tables of public data sets."""


def canonical_expression(name: str) -> str:
    """Returns the project's name of an expression ("Happiness" → "happy").

    Raises:
        ValueError: the name is no expression and no known synonym.
    """
    key = name.strip().lower()
    key = SYNONYMS.get(key, key)
    if key not in EXPRESSIONS:
        raise ValueError(
            f"unknown expression '{name}': expected one of {', '.join(EXPRESSIONS)}"
            + did_you_mean(key, [*EXPRESSIONS, *SYNONYMS])
        )
    return key


def resolve_label_space(space: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the ordered names of a label space given by its name ("basic7") or as a list of expressions.

    Raises:
        ValueError: unknown name of a space, unknown expression, a name twice, or fewer than two names.
    """
    if isinstance(space, str):
        if space not in LABEL_SPACES:
            raise ValueError(
                f"unknown label space '{space}': expected one of {', '.join(LABEL_SPACES)} or a list of names"
                + did_you_mean(space, list(LABEL_SPACES))
            )
        return LABEL_SPACES[space]
    names = tuple(canonical_expression(name) for name in space)
    if len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"label space {list(names)}: expected at least two different expressions")
    return names


def map_label_space(source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Returns, for each name of ``target``, its index in ``source``: int64 (len(target),), −1 where it is absent."""
    position = {name: index for index, name in enumerate(source)}
    return np.array([position.get(name, -1) for name in target], dtype=np.int64)
