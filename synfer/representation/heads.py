"""Heads of pre-training: layers between a backbone and the loss, thrown away afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synfer.foundation.default_ranks import default_ranks
from synfer.representation.gathered import summed


class JoinedBatchNorm(nn.BatchNorm1d):
    """Batch norm of rows (B, C) over the batches of all ranks, on a CPU too, where torch's SyncBatchNorm does not run.

    Without it, ranks could tell each other's faces by their statistics, and two ranks would not be one process.
    A collective in training. Ranks may hold different numbers of rows.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns the normalised rows (B, C)."""
        if not self.training or default_ranks(None, None)[0] == 1:
            return super().forward(input)
        rows = input if input.dtype == torch.float64 else input.float()
        ones = rows.new_full((1,), float(len(rows)))
        sums = summed(torch.cat([rows.sum(0), ones]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = rows - mean
        variance = summed((centred**2).sum(0)) / count
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
        normalised = centred * (variance + self.eps).rsqrt()
        if self.affine:
            normalised = normalised * self.weight + self.bias
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def projection_head(in_features: int, hidden: int, out_features: int, layers: int, last_norm: bool) -> nn.Sequential:
    """Returns a multi-layer perceptron with batch norm and ReLU between its layers.

    Args:
        in_features: width of what it reads.
        hidden: width between layers.
        out_features: width of the embedding.
        layers: linear layers, ≥ 1.
        last_norm: whether the last layer is normalised as well, without a scale of its own, as in SimCLR and MoCo v3.
    """
    modules: list[nn.Module] = []
    for index in range(layers):
        width = hidden if index < layers - 1 else out_features
        normalised = index < layers - 1 or last_norm
        modules.append(nn.Linear(in_features, width, bias=not normalised))
        if index < layers - 1:
            modules += [JoinedBatchNorm(width), nn.ReLU(inplace=True)]
        elif last_norm:
            modules.append(JoinedBatchNorm(width, affine=False))
        in_features = width
    return nn.Sequential(*modules)


class ExpressionProjection(nn.Linear):
    """One linear layer into a space of expressions, in which rows are compared by their cosine; no bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns unit rows (B, D) of rows (B, F)."""
        return F.normalize(F.linear(input.float(), self.weight.float()), dim=-1)
