"""How far the annotators of a data set agree: a bound on what any classifier can be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def annotator_agreement(votes: np.ndarray) -> dict[str, float]:
    """Returns how far those who voted agree, over faces with at least two votes.

    - ``faces``: how many have two votes or more; ``annotators``: votes of one, on average.
    - ``majority``: share of the votes of a face that its most frequent answer has, on average, in (0, 1].
    - ``pairwise``: probability that two different annotators of a face say the same, on average, in [0, 1].
    - ``fleiss_kappa``: that beyond chance, (pairwise − chance) / (1 − chance), at most 1, where chance is that of two
      votes drawn from all of them (Fleiss 1971, Psychological Bulletin 76, 378-382; here for any number of votes a
      face). Left out where all votes are one answer.

    Args:
        votes: non-negative int (N, C): votes of each face for each of C answers, "not known" being one of them.

    Returns:
        Numbers by name; empty without a face of two votes.
    """
    counts = votes.astype(np.float64)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        return {}
    cast = counts.sum(axis=1)
    pairwise = float(((counts * (counts - 1)).sum(axis=1) / (cast * (cast - 1))).mean())
    found = {
        "faces": float(len(counts)),
        "annotators": float(cast.mean()),
        "majority": float((counts.max(axis=1) / cast).mean()),
        "pairwise": pairwise,
    }
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    if chance < 1:
        found["fleiss_kappa"] = (pairwise - chance) / (1 - chance)
    return found


def pooled_agreement(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns how far those agree who voted on the faces of several data sets, together.

    Means over faces are those of all faces. ``fleiss_kappa`` is left out beside a second part: chance is that of all
    votes, and the answers of data sets are not the same.

    Args:
        parts: of :func:`annotator_agreement`; an empty one is of a data set that does not say.

    Returns:
        The same numbers; those of the only part that says any, as they are.
    """
    told = [part for part in parts if part]
    if len(told) < 2:
        return dict(told[0]) if told else {}
    faces = sum(part["faces"] for part in told)
    means = {name: sum(part[name] * part["faces"] for part in told) / faces for name in _MEANS}
    return {"faces": faces, **means}


_MEANS = ("annotators", "majority", "pairwise")
