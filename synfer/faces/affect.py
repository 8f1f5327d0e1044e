"""Valence and arousal: how pleasant and how activated what a face shows is, and where expressions lie in that plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

AFFECT = ("valence", "arousal")
"""The two numbers in [-1, 1] by which a face is rated, in the order of every array that holds them."""

PUBLISHED_POSITIONS: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "happy": (0.81, 0.51),
    "sad": (-0.63, -0.27),
    "surprise": (0.40, 0.67),
    "fear": (-0.64, 0.60),
    "disgust": (-0.60, 0.35),
    "anger": (-0.51, 0.59),
}
"""Mean ratings of pleasure and arousal of the words "happy", "sad", "surprised", "fearful", "disgusted" and "angry"
(Russell and Mehrabian 1977, Evidence for a three-factor theory of emotions, J. Res. Personality 11, 273-294, table of
151 terms); neutral is the middle by definition, and contempt is left open. Ratings of words, not of faces."""


def positions_of(expressions: Sequence[str], strength: np.ndarray) -> np.ndarray:
    """Returns valence and arousal, float32 (n, 2), of expressions that are shown with a strength.

    The published position times the strength: nothing shown is the middle. NaN for an expression without a position.

    Args:
        expressions: n canonical names.
        strength: (n,) in [0, 1].
    """
    unknown = (float("nan"), float("nan"))
    positions = np.array([PUBLISHED_POSITIONS.get(name, unknown) for name in expressions], dtype=np.float64)
    return (positions.reshape(-1, 2) * strength[:, None]).astype(np.float32)
