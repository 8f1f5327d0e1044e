"""How well action units are seen: F1 per unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def action_unit_scores(
    seen: Tensor, truth: Tensor, names: Sequence[str], present_above: float = 0.5
) -> dict[str, float]:
    """Returns F1 by name of the action unit, and "mean" over them.

    F1 and not accuracy, because most units are absent from most faces. A unit that is present in no face whose truth is
    known has no F1 and is left out, also of the mean.

    Args:
        seen: estimated intensities (n, A) in [0, 1].
        truth: true intensities (n, A) in [0, 1], NaN = unknown: that face does not count for that unit.
        names: A names.
        present_above: an intensity above this is "present", in both.
    """
    known = ~torch.isnan(truth)
    present, found = known & (truth > present_above), known & (seen > present_above)
    scores = {}
    for column, name in enumerate(names):
        true, claimed = int(present[:, column].sum()), int(found[:, column].sum())
        if true:
            scores[name] = 2 * int((present & found)[:, column].sum()) / (true + claimed)
    if scores:
        scores["mean"] = sum(scores.values()) / len(scores)
    return scores
