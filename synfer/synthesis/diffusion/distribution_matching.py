"""Real-Fake's distribution matching: outputs of a network should have the mean of their targets."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from synfer.foundation.default_ranks import default_ranks


def distance_of_means(weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the squared distance between the weighted means of outputs and targets over the batches of all ranks.

    ‖mean_b w_b·ε̂_b − mean_b w_b·ε_b‖² / (C·h·w), the maximum mean discrepancy that Real-Fake (arXiv 2310.10402) adds to
    the loss of each sample. Its code takes sums over the batch of one device, which grow with the square of its size;
    of means over all ranks neither a repeated batch nor twice the ranks changes anything.

    A collective where there are several ranks, with batches of one size. Each rank's gradient reaches its own samples
    alone, so scaled that the mean over ranks, which data-parallel training takes, is that of one process with all of
    them.

    Args:
        weighted: float32 (B, C, h, w), w·(ε̂ − ε) in whatever form the network gives.

    Returns:
        The distance, a scalar with gradients, and its ratio to what is to be expected of a network that is right on
        average, whose mean is not 0 because batches are small: mean_b r_b² / B. 1 = nothing is left to match.
    """
    ranks, _ = default_ranks(None, None)
    own = weighted.mean(0)
    gathered = torch.cat([own.detach().flatten(), weighted.detach().square().mean()[None]])
    if ranks > 1:
        dist.all_reduce(gathered)
        gathered /= ranks
    mean = own + (gathered[:-1].view_as(own) - own.detach())
    distance = mean.square().mean()
    floor = gathered[-1] / (len(weighted) * ranks)
    return distance, distance.detach() / floor.clamp_min(torch.finfo(floor.dtype).tiny)
