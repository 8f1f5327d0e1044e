"""The channels-last memory format, kept by the gradients as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def to_channels_last(network: nn.Module) -> nn.Module:
    """Brings a timm network's convolutions into channels-last; returns the same network.

    Convolutions, and above all the pooling between stages, are faster in this format on a CPU and on newer GPUs. Two
    layers of timm's VoVNets would let the gradients leave it, and PyTorch's CPU kernels then fall back to loops over
    single numbers (twenty-five times slower for a sum of 128×24×24×24 bfloat16 numbers): the gradient of a
    concatenation comes in slices, which are not dense, and that of a mean over rows and columns in the other format.
    These layers are replaced by ones with the same parameters, names and values.

    Args:
        network: changed in place.
    """
    from timm.layers import EffectiveSEModule  # seconds to import: only when there is a network of its
    from timm.models.vovnet import SequentialAppendList

    for path, module in list(network.named_modules()):
        if isinstance(module, SequentialAppendList):
            network.set_submodule(path, _AppendedLayers(*module))
        elif isinstance(module, EffectiveSEModule) and not module.add_maxpool:
            network.set_submodule(path, _SqueezeExcite(module.fc, module.gate))
    return network.to(memory_format=torch.channels_last)


class _AppendedLayers(nn.Sequential):
    """Layers one after the other, whose input and outputs are joined (one-shot aggregation, arXiv 1904.09730)."""

    def forward(self, x: Tensor, outputs: list[Tensor]) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x)
            outputs.append(x)
        return _Concatenation.apply(*outputs)


class _Concatenation(torch.autograd.Function):
    """Joins maps (B, C, h, w) along their channels; each gets a dense gradient."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        ctx.channels = [m.shape[1] for m in maps]
        return torch.cat(maps, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.contiguous(memory_format=torch.channels_last) for part in gradient.split(ctx.channels, 1))


class _SqueezeExcite(nn.Module):
    """Weighs channels by their means (effective squeeze-and-excitation, arXiv 1911.06667)."""

    def __init__(self, fc: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.fc = fc
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        means = x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)  # in the order in which x lies in memory
        return x * self.gate(self.fc(means[:, :, None, None]))
