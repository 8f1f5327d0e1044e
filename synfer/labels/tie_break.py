"""The most probable class, and which one where several are equally probable."""

from __future__ import annotations

from torch import Tensor


def argmax_with_tie_break(probabilities: Tensor, preferred: Tensor) -> Tensor:
    """Returns the most probable class of each row, int64 (n,).

    Args:
        probabilities: float (n, K).
        preferred: int64 (n,): this class where several are equally probable (within 1e-6) and it is one of them; else
            the first.
    """
    is_top = probabilities.gather(1, preferred[:, None])[:, 0] >= probabilities.amax(1) - 1e-6
    return preferred.where(is_top, probabilities.argmax(1))
