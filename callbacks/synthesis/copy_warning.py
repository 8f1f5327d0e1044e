"""A line where the faces that fill a pool are copies of training faces, before hours are trained on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.synthesis.layout_initialisation import LayoutInitialisation
from callbacks.synthesis.near_copy_count import NearCopyCount

FEWEST = 20
"""Faces below which a share says nothing."""

_MORE_THAN_REAL = 0.1


def warn_of_copies(copies: NearCopyCount, held_out_share: float, callbacks: Sequence[Callback]) -> None:
    """Warns where the share of near copies lies more than ten points above that of real validation faces.

    Args:
        copies: the faces kept so far.
        held_out_share: share of near copies among validation faces, in [0, 1]; NaN = unknown, as 0.
        callbacks: of the run: one that takes layouts has settings that help.
    """
    real = 0.0 if math.isnan(held_out_share) else held_out_share
    if copies.checked < FEWEST or copies.share <= real + _MORE_THAN_REAL:
        return
    layout: Any = next((c for c in callbacks if isinstance(c, LayoutInitialisation) and c.enabled), None)
    if layout is None:
        expected = "a generator that has not learned its faces by heart (more faces, fewer epochs)"
    elif layout.max_similarity is None:
        expected = "--layout.max_similarity 0.97, which discards copies of the own source, or more layout.num_inverted"
    else:
        expected = f"more layout.num_inverted than {layout.num_inverted}, or faces from noise (--layout.enabled false)"
    rank_zero_warn(
        f"found {copies.near_copies} of the first {copies.checked} synthetic faces ({copies.share:.0%}) that are near "
        f"copies of training faces (real validation faces: {real:.0%}), expected {expected}"
    )
