"""What a face is asked for beside its expression: caption and action units, drawn for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synfer.faces.action_units import ACTION_UNITS, sample_action_units
from synfer.faces.captions import PLAIN_CAPTION, caption_for
from synfer.faces.expression_words import without_expression
from synfer.foundation.counter_based_random import keyed_uniform, keys_of


def draw_conditions(
    expressions: Sequence[str], indices: Sequence[int], seed: int, au_names: Sequence[str] = ACTION_UNITS
) -> tuple[list[str], np.ndarray]:
    """Returns captions, and action units float32 (n, A) in [0, 1], of the samples with these numbers.

    A pure function of (expression, seed, number), whoever asks: a set that is made ahead, the pool of a training, the
    grid and the test of a generator give sample i the same conditions, and so the same face.

    Args:
        expressions: n canonical names.
        indices: n numbers of samples, ≥ 0.
        seed: of the run.
        au_names: names of the A action units.
    """
    # By the name that the sample has in a set: sets that were begun so long ago go on with the same faces.
    keys = keys_of(sample_name(seed, index) for index in indices)
    uniform = keyed_uniform(keys, 2 * len(au_names), seed).reshape(len(keys), 2, len(au_names))
    return [caption_for(name) for name in expressions], sample_action_units(expressions, uniform, au_names)


def asked_captions(captions: Sequence[str], settings: Any) -> tuple[str, ...]:
    """Returns captions as settings of sampling want them asked: without the expression where they say so.

    Args:
        captions: n captions.
        settings: of a synthesiser of any kind; those without ``mention_expression``, and None, leave captions alone.
    """
    if getattr(settings, "mention_expression", True):
        return tuple(captions)
    return tuple(without_expression(caption) or PLAIN_CAPTION for caption in captions)


def fill_action_units(
    units: np.ndarray,
    expressions: Sequence[str | None],
    sample_ids: Sequence[str],
    *stream: int,
    au_names: Sequence[str] = ACTION_UNITS,
) -> np.ndarray:
    """Gives samples without any known action unit a draw from their expression's FACS prototype.

    Args:
        units: float32 (n, A), NaN = unknown.
        expressions: n canonical names; None = not known, and the action units stay unknown.
        sample_ids: n ids; with the stream they decide what a sample gets.
        stream: what tells this use from others.
        au_names: names of the A action units.

    Returns:
        float32 (n, A); ``units`` itself where nothing is to be filled.
    """
    rows = np.flatnonzero(np.isnan(units).all(1) & np.array([name is not None for name in expressions], dtype=bool))
    if not len(rows):
        return units
    uniform = keyed_uniform(keys_of(sample_ids[row] for row in rows.tolist()), 2 * len(au_names), *stream)
    filled = units.copy()
    names = [name for row in rows.tolist() if (name := expressions[row]) is not None]
    filled[rows] = sample_action_units(names, uniform.reshape(len(rows), 2, -1), au_names)
    return filled


def sample_name(seed: int, index: int) -> str:
    """Returns the sample id of a face in a set: "syn-<seed>-<index>"."""
    return f"syn-{seed}-{index:06d}"
