"""How far the annotators of a data set agree: a bound on what any classifier can be asked for."""

from __future__ import annotations

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
