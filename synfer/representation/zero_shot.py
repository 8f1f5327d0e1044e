"""Classes as directions in a space of pictures and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def ensemble(
    text: Callable[[Sequence[str]], Tensor],
    prompts: Mapping[str, Sequence[str]],
    projection: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Returns one unit row per class, (K, D): the mean of its sentences' unit rows (Radford et al., ICML 2021).

    Args:
        text: sentences → unit rows (n, D).
        prompts: class → sentences, in the order of the rows.
        projection: applied to each sentence's row first; gives unit rows.
    """
    rows = []
    for sentences in prompts.values():
        found = text(list(sentences))
        rows.append(F.normalize((found if projection is None else projection(found)).mean(0), dim=0))
    return torch.stack(rows)
